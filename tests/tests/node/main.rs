//! Tests of whole nodes: a real `bifro-uring` process, clients that nobody here has written, operators that reload and
//! restart. One binary, since each more would link the same code again.

mod auth;
mod foreign;
mod process;
mod reload;
