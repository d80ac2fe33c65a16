//! The lock table against Linux's rules, by example, and against a dull model in random histories.

mod model;
mod rules;
