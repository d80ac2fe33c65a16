//! Everything between two processes that is not meaning: channels, retries, leader hints, block
//! tokens, the HTTP port, and what daemons share in how they start and stop.

pub mod daemon;
pub mod http;
pub mod leader;
pub mod measure;
pub mod net;
pub mod runtime;
pub mod spot;
pub mod token;

pub use leader::{LeaderClient, Retry, answered};
pub use net::Channels;
pub use runtime::runtime;
