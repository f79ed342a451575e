//! The boundary to the kernel: the BPF programs, one object per [`Tier`], the layout of what they share with user space
//! ([`layout`]), and bpf(2) for maps ([`sys`]).
//!
//! The programs are C (`src/*.bpf.c`), compiled by clang when this crate is built, and relocated to the running
//! kernel's structures when the agent loads them (CO-RE). They need kernel 5.15 or newer with BTF.

#[cfg(feature = "aya")]
mod object;

pub mod layout;
pub mod sys;

#[cfg(feature = "aya")]
pub use object::Tier;
