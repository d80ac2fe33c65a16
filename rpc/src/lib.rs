//! Everything between two processes that is not meaning: channels, retries, leader hints, block
//! tokens, and the HTTP port.

pub mod http;
pub mod leader;
pub mod net;
pub mod token;

pub use leader::{LeaderClient, Retry};
pub use net::Channels;
