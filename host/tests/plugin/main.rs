//! The plugin runtime: real components through the real engine.

mod cache;
mod faults;
mod first_party;
mod fixture;
mod registry;
