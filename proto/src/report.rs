//! What an agent counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maplatency_core::budget::Shed;
use maplatency_core::callers::CallerRow;
use maplatency_core::cost::Cost;
use maplatency_core::exact::ExactRow;
use maplatency_core::measure::{Place, Rows, WorstSlice};
use maplatency_core::outliers::Outliers;
use maplatency_core::spikes::Spike;
use maplatency_core::{MapIdentity, MapType};

use crate::budget::{shed, shed_to_wire};
use crate::callers::{callers, callers_to_wire};
use crate::cost::{cost, cost_to_wire};
use crate::exact::{exact, exact_to_wire};
use crate::invalid::{
    Checked, Problem, each, form, kernel_name, length, nanoseconds, range, repeated, text, uid,
};
use crate::outliers::{outliers, outliers_to_wire};
use crate::rows::{rows, rows_to_wire, worst, worst_to_wire};
use crate::spikes::{spikes, spikes_to_wire};
use crate::{
    InvalidMessage, MAX_LOSS_KINDS, MAX_MAPS, MAX_PROBES, MAX_PROBLEMS, MAX_SAMPLING, MAX_SERIES,
    wire,
};

/// The totals of an epoch at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Rises by one with every new report of the epoch, over all its streams; at least 1.
    pub sequence: u64,
    /// The assignment that the agent ran; 0 before the first.
    pub revision: u64,
    /// When the report was taken, since the epoch began, by a clock that never steps.
    pub taken: Duration,
    /// What was counted for each probe, each uid once.
    pub probes: Vec<ProbeReport>,
    /// Operations that were seen and could not be recorded, by kind, since the epoch began.
    pub losses: BTreeMap<String, u64>,
    /// What the agent costs its node. Empty from an agent that does not tell.
    pub cost: Cost,
    /// What the agent leaves out to stay within its budget, each step once.
    pub shed: Vec<Shed>,
}

/// What was counted for one generation of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The probe's uid, as assigned.
    pub uid: String,
    /// The generation of the spec that was measured.
    pub generation: i64,
    /// Maps that match now, each id once.
    pub maps: Vec<MapIdentity>,
    /// Cumulative since the epoch began.
    pub rows: Rows,
    /// The worst second of each map, operation and CPU in the agent's current window.
    pub worst: BTreeMap<Place, WorstSlice>,
    /// Until the first report of the stream with rows of this uid and generation is older than the window. `None` where there
    /// was no room, too.
    pub beginning: Option<Beginning>,
    /// What of the spec cannot be done on this node, as sentences for users. The probe is not ready with any.
    pub problems: Vec<String>,
    /// There was no room for the rows: `rows`, `worst`, `callers` and `beginning` are empty and say nothing.
    pub rows_withheld: bool,
    /// Who called in the agent's current window, those of each map that spent most time first.
    pub callers: Vec<CallerRow>,
    /// Spikes in the agent's current window, those first that lost most time.
    pub spikes: Vec<Spike>,
    /// Slow operations in the agent's current window, one by one. `None`: none are asked for.
    pub outliers: Option<Outliers>,
    /// The most operations that one counted in the agent's current window stands for; 1: every one was counted.
    pub sampling: u32,
    /// Figures of single operations in the agent's current window, those of most operations first.
    pub exact: Vec<ExactRow>,
}

/// The cumulative state with which the agent's current window begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// When that state was taken, on the clock of [`Report::taken`] and not after it.
    pub taken: Duration,
    /// The state.
    pub rows: Rows,
}

impl TryFrom<wire::Report> for Report {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Report) -> Checked<Self> {
        let wire::Report {
            sequence,
            revision,
            taken_nanoseconds,
            probes,
            losses,
            cost: wire_cost,
            shed: wire_shed,
        } = wire;
        let fields = || {
            length("probes", probes.len(), MAX_PROBES)?;
            length("losses", losses.len(), MAX_LOSS_KINDS)?;
            check_series(&probes)?;
            Ok(Self {
                sequence: range("sequence", sequence, 1, u64::MAX)?,
                revision,
                taken: Duration::from_nanos(taken_nanoseconds),
                probes: check_probes(probes, taken_nanoseconds)?,
                losses: losses
                    .into_iter()
                    .map(|(kind, count)| Ok((loss_kind(kind)?, count)))
                    .collect::<Checked<_>>()?,
                cost: cost(wire_cost)?,
                shed: shed(wire_shed)?,
            })
        };
        fields().map_err(|e: InvalidMessage| e.within("report"))
    }
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        let Report {
            sequence,
            revision,
            taken,
            probes,
            losses,
            cost,
            shed,
        } = report;
        Self {
            sequence,
            revision,
            taken_nanoseconds: nanoseconds(taken),
            probes: probes.into_iter().map(Into::into).collect(),
            losses: losses.into_iter().collect(),
            cost: Some(cost_to_wire(cost)),
            shed: shed_to_wire(shed),
        }
    }
}

impl TryFrom<wire::ProbeReport> for ProbeReport {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ProbeReport) -> Checked<Self> {
        let wire::ProbeReport {
            uid: id,
            generation,
            maps,
            rows: wire_rows,
            worst: wire_worst,
            beginning,
            problems,
            rows_withheld,
            callers: wire_callers,
            spikes: wire_spikes,
            outliers: wire_outliers,
            sampling,
            exact: wire_exact,
        } = wire;
        let has_rows = !(wire_rows.is_empty() && wire_worst.is_empty() && wire_callers.is_empty());
        if rows_withheld && (has_rows || beginning.is_some()) {
            let problem = Problem::Form("true where there are rows, worst, callers or beginning");
            return Err(InvalidMessage::new("rows_withheld", problem));
        }
        length("problems", problems.len(), MAX_PROBLEMS)?;
        Ok(Self {
            uid: uid(id)?,
            generation: range("generation", generation, 0, i64::MAX)?,
            maps: check_maps(maps)?,
            rows: rows(wire_rows)?,
            worst: worst(wire_worst)?,
            beginning: beginning.map(Beginning::try_from).transpose()?,
            problems: each("problems", problems, |it| {
                text("value", it, 512, "1 to 512 bytes of printable text")
            })?,
            rows_withheld,
            callers: callers(wire_callers)?,
            spikes: spikes(wire_spikes)?,
            outliers: wire_outliers
                .map(outliers)
                .transpose()
                .map_err(|e| e.within("outliers"))?,
            // 0 from an agent that cannot sample.
            sampling: range("sampling", sampling, 0, MAX_SAMPLING)?.max(1),
            exact: exact(wire_exact)?,
        })
    }
}

impl From<ProbeReport> for wire::ProbeReport {
    fn from(report: ProbeReport) -> Self {
        let ProbeReport {
            uid,
            generation,
            maps,
            rows,
            worst,
            beginning,
            problems,
            rows_withheld,
            callers,
            spikes,
            outliers,
            sampling,
            exact,
        } = report;
        Self {
            uid,
            generation,
            maps: maps
                .into_iter()
                .map(|MapIdentity { id, name, map_type }| wire::Map {
                    id,
                    name,
                    r#type: map_type.map_or(0, MapType::number),
                })
                .collect(),
            rows: rows_to_wire(rows),
            worst: worst_to_wire(worst),
            beginning: beginning.map(Into::into),
            problems,
            rows_withheld,
            callers: callers_to_wire(callers),
            spikes: spikes_to_wire(spikes),
            outliers: outliers.map(outliers_to_wire),
            sampling,
            exact: exact_to_wire(&exact),
        }
    }
}

impl TryFrom<wire::Beginning> for Beginning {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Beginning) -> Checked<Self> {
        let wire::Beginning {
            taken_nanoseconds,
            rows: wire_rows,
        } = wire;
        Ok(Self {
            taken: Duration::from_nanos(taken_nanoseconds),
            rows: rows(wire_rows).map_err(|e| e.within("beginning"))?,
        })
    }
}

impl From<Beginning> for wire::Beginning {
    fn from(beginning: Beginning) -> Self {
        let Beginning { taken, rows } = beginning;
        Self {
            taken_nanoseconds: nanoseconds(taken),
            rows: rows_to_wire(rows),
        }
    }
}

/// Counts rows before any is converted, so that an oversized report costs little.
fn check_series(probes: &[wire::ProbeReport]) -> Checked<()> {
    let mut series = 0;
    for (at, probe) in probes.iter().enumerate() {
        let before = probe.beginning.as_ref().map_or(0, |it| it.rows.len());
        series += probe.rows.len() + before;
        length(&format!("probes[{at}].rows"), series, MAX_SERIES)?;
        length(
            &format!("probes[{at}].worst"),
            probe.worst.len(),
            MAX_SERIES,
        )?;
        length(&format!("probes[{at}].maps"), probe.maps.len(), MAX_MAPS)?;
    }
    Ok(())
}

fn check_probes(wire: Vec<wire::ProbeReport>, taken: u64) -> Checked<Vec<ProbeReport>> {
    let probes = each("probes", wire, |it| {
        if let Some(beginning) = &it.beginning {
            range(
                "beginning.taken_nanoseconds",
                beginning.taken_nanoseconds,
                0,
                taken,
            )?;
        }
        ProbeReport::try_from(it)
    })?;
    let mut seen = BTreeSet::new();
    if let Some(at) = probes.iter().position(|it| !seen.insert(&it.uid)) {
        return Err(repeated("probes", at, "uid"));
    }
    Ok(probes)
}

fn check_maps(wire: Vec<wire::Map>) -> Checked<Vec<MapIdentity>> {
    let maps = each("maps", wire, |wire::Map { id, name, r#type }| {
        Ok(MapIdentity {
            id: range("id", id, 1, i32::MAX)?,
            name: kernel_name("name", name)?,
            // A newer agent may know more types; its maps count all the same.
            map_type: MapType::from_number(r#type),
        })
    })?;
    let mut seen = BTreeSet::new();
    if let Some(at) = maps.iter().position(|it| !seen.insert(it.id)) {
        return Err(repeated("maps", at, "id"));
    }
    Ok(maps)
}

fn loss_kind(kind: String) -> Checked<String> {
    form(
        "losses",
        kind,
        "keyed by 1 to 64 letters, digits, '-' and '_'",
        |it| {
            (1..=64).contains(&it.len())
                && it
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        },
    )
}
