//! The machine against a scripted driver: every test compares the exact packets and effects of each step, as text.

mod auth;
mod close;
mod connect;
mod deliver;
mod durable;
mod limits;
mod publish;
mod resume;
mod rig;
mod subscribe;
mod will;
