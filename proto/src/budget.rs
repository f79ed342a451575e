//! What an agent leaves out, on the wire.

use maplatency_core::budget::{Resource, Shed, Step};

use crate::invalid::{Checked, Problem, each, length, range, repeated};
use crate::{InvalidMessage, MAX_SAMPLING, wire};

pub(crate) fn shed(wire: Vec<wire::ShedStep>) -> Checked<Vec<Shed>> {
    length("shed", wire.len(), Step::ALL.len())?;
    let all = each("shed", wire, one)?;
    let again = |at: usize| all[..at].iter().any(|it| it.step == all[at].step);
    match (0..all.len()).find(|at| again(*at)) {
        Some(at) => Err(repeated("shed", at, "step")),
        None => Ok(all),
    }
}

fn one(wire: wire::ShedStep) -> Checked<Shed> {
    let wire::ShedStep {
        step,
        resource,
        since_unix_microseconds: since,
        one_in,
    } = wire;
    let unknown = |field, value: i32| InvalidMessage::new(field, Problem::Unknown(value.into()));
    Ok(Shed {
        step: match wire::Step::try_from(step) {
            Ok(wire::Step::FewerOutliers) => Step::FewerOutliers,
            Ok(wire::Step::CoarserCallers) => Step::CoarserCallers,
            Ok(wire::Step::Sampling) => Step::Sampling,
            Ok(wire::Step::Unspecified) | Err(_) => return Err(unknown("step", step)),
        },
        resource: match wire::Resource::try_from(resource) {
            Ok(wire::Resource::Cpu) => Resource::Cpu,
            Ok(wire::Resource::Memory) => Resource::Memory,
            Ok(wire::Resource::Unspecified) | Err(_) => return Err(unknown("resource", resource)),
        },
        since_unix_microseconds: range("since_unix_microseconds", since, 0, i64::MAX)?,
        one_in: range("one_in", one_in, 1, MAX_SAMPLING)?,
    })
}

pub(crate) fn shed_to_wire(shed: Vec<Shed>) -> Vec<wire::ShedStep> {
    let one = |it: Shed| {
        let Shed {
            step,
            resource,
            since_unix_microseconds,
            one_in,
        } = it;
        let step = match step {
            Step::FewerOutliers => wire::Step::FewerOutliers,
            Step::CoarserCallers => wire::Step::CoarserCallers,
            Step::Sampling => wire::Step::Sampling,
        };
        let resource = match resource {
            Resource::Cpu => wire::Resource::Cpu,
            Resource::Memory => wire::Resource::Memory,
        };
        wire::ShedStep {
            step: step.into(),
            resource: resource.into(),
            since_unix_microseconds,
            one_in,
        }
    };
    shed.into_iter().map(one).collect()
}
