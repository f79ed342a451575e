//! How agents and operator know each other, with real tokens and certificates of a real API server.

mod floods;
mod rotation;
mod shared;
mod tokens;
