//! Single operations: when they are taken, and what becomes of them in a slice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use maplatency_core::exact::MapOperation;

use super::Measuring;
use crate::engine::Instance;
use crate::error::chain;
use crate::monitor::collector::{Collector, Figures};
use crate::monitor::{MonitorError, Written};

impl Measuring {
    /// Starts taking single operations, or ends it. Gives the problem if it cannot be started.
    pub(super) fn set_collector(&mut self, wanted: bool) -> Result<Option<String>, MonitorError> {
        match (self.collector.take(), wanted) {
            (None, false) => Ok(None),
            (None, true) => match self.collect() {
                Ok(()) => Ok(None),
                Err(problem) => {
                    self.engine.close_ring()?;
                    self.meter.set_extra(None);
                    Ok(Some(problem))
                }
            },
            (Some(collector), true) => {
                self.collector = Some(collector);
                Ok(None)
            }
            (Some(collector), false) => {
                self.engine.close_ring()?;
                collector.finish()?;
                self.meter.set_extra(None);
                crate::heap::trim();
                Ok(None)
            }
        }
    }

    fn collect(&mut self) -> Result<(), String> {
        let ring = self.engine.open_ring().map_err(|it| chain(&it))?;
        // Nobody but the agent uses it, so it is no map to measure.
        self.maps.hide(ring.id());
        let extra = ring.descriptor().map_err(|it| chain(&it))?;
        self.meter.set_extra(Some(extra));
        let (began, epoch) = (self.began, self.epoch);
        let wall = move |ns| epoch.nanoseconds(Duration::from_nanos(ns).saturating_sub(began));
        let collector = Collector::start(ring, self.file.take(), Arc::new(wall));
        self.collector = Some(collector.map_err(|it| chain(&it))?);
        Ok(())
    }

    /// Ends measuring. Where operations are written, with all that were counted.
    pub(super) fn finish(mut self) -> Result<(), MonitorError> {
        if !self.writes || self.collector.is_none() {
            return Ok(());
        }
        self.engine.stop_handing_over()?;
        self.engine.close_ring()?;
        self.slice()?;
        // More may have come than a slice takes.
        if let Some(collector) = self.collector.take() {
            let written = collector.finish()?;
            self.publish
                .send_modify(|it| Arc::make_mut(it).written = Some(written));
        }
        Ok(())
    }

    /// Takes the single operations of the slice.
    pub(super) fn settle(
        &mut self,
        now: Duration,
        shown: &BTreeMap<Instance, BTreeSet<u32>>,
        missed: &BTreeMap<Instance, BTreeMap<MapOperation, u64>>,
    ) -> Result<(BTreeMap<Instance, Figures>, Option<Written>), MonitorError> {
        if let Some(ended) = self.collector.take_if(|it| it.has_ended()) {
            ended.finish()?;
            return Err(MonitorError::Ended);
        }
        let newest = self.engine.newest_map();
        let settle = |it: &Collector| it.settle(now, shown, newest, missed);
        Ok(self.collector.as_ref().map(settle).unwrap_or_default())
    }
}
