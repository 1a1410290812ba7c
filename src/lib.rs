//! The gateway as a library, for programs that embed it: [`Config`] and [`Gateway`].

pub use crate::{
    config::Config,
    gateway::{Error, Gateway},
};

mod admin;
pub mod auth;
pub mod balance;
mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
mod demo;
pub mod dial;
mod gateway;
pub mod listener;
pub mod metrics;
pub mod permit;
pub mod policy;
pub mod refusal;
pub mod relay;
pub mod route;
pub mod session;
pub mod shutdown;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod web;
