//! Which probe sits in which slot of the kernel side.

use maplatency_bpf::layout::{MAX_PROBES, Probe};

use super::Instance;

/// A place for one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: usize,
    pub(super) instance: Instance,
}

/// Slots in use, and the next instance number.
#[derive(Debug, Default)]
pub(super) struct Slots {
    used: Vec<(Slot, Probe)>,
    given: u32,
}

impl Slots {
    /// A free slot with a number of its own. It is in use only after [`Self::put`].
    pub(super) fn take(&mut self) -> Option<Slot> {
        let index =
            (0..MAX_PROBES).find(|it| self.used.iter().all(|(slot, _)| slot.index != *it))?;
        self.given += 1;
        Some(Slot {
            index,
            instance: Instance(self.given),
        })
    }

    pub(super) fn put(&mut self, slot: Slot, probe: Probe) {
        self.used.push((slot, probe));
    }

    pub(super) fn release(&mut self, instance: Instance) -> Option<Slot> {
        let at = self.used.iter().position(|it| it.0.instance == instance)?;
        Some(self.used.swap_remove(at).0)
    }

    pub(super) fn slot_of(&self, instance: Instance) -> Option<Slot> {
        self.used
            .iter()
            .map(|it| it.0)
            .find(|it| it.instance == instance)
    }

    pub(super) fn in_use_mut(&mut self) -> impl Iterator<Item = (usize, &mut Probe)> {
        self.used
            .iter_mut()
            .map(|(slot, probe)| (slot.index, probe))
    }

    pub(super) fn in_use(&self) -> impl Iterator<Item = (usize, &Probe)> {
        self.used.iter().map(|(slot, probe)| (slot.index, probe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_but_an_instance_never() {
        let mut slots = Slots::default();
        let first = slots.take().unwrap();
        slots.put(first, Probe::default());
        assert_eq!(slots.release(first.instance), Some(first));
        let second = slots.take().unwrap();
        assert_eq!(first.index, second.index);
        assert_ne!(first.instance, second.instance);
    }

    #[test]
    fn there_is_an_end_to_slots() {
        let mut slots = Slots::default();
        for _ in 0..MAX_PROBES {
            let slot = slots.take().unwrap();
            slots.put(slot, Probe::default());
        }
        assert_eq!(slots.take(), None);
    }
}
