//! The Helm chart: what it renders, what a real API server says to it, and what is left when it is gone.

mod contents;
mod grants;
mod lifecycle;
mod rendering;
mod shared;
