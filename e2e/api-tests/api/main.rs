//! The real operator and the real agent against a real API server, with a real program that reads a real map.

mod changes;
mod first_figures;
mod nodes;
mod overlaps;
mod processes;
mod refusals;
mod restarts;
mod shared;
