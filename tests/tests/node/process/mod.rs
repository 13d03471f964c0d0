//! The process as operators meet it: command line, defaults, signals, sockets, the admin endpoint, and `bifroctl`.

mod admin;
mod command_line;
mod ctl;
mod defaults;
mod shutdown;
mod sockets;
