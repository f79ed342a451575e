//! Objectives, a row each.

use maplatency_core::crd::objectives::{Objective, ObjectiveStatus};
use maplatency_core::objectives::wanted;

use super::{Column, NOTHING, duration, grid};

const COLUMNS: &[Column] = &[
    Column::left("OBJECTIVE"),
    Column::left("LATENCY"),
    Column::right("NOW"),
    Column::right("AT MOST"),
    Column::left("STATE"),
];

/// The section, or nothing without objectives.
pub(super) fn section(objectives: &[Objective], states: &[ObjectiveStatus]) -> Option<String> {
    let each = objectives.iter().zip(states);
    let rows: Vec<_> = each.map(|(objective, it)| row(objective, it)).collect();
    (!rows.is_empty()).then(|| format!("\n{}", grid(COLUMNS, &rows)))
}

fn row(objective: &Objective, status: &ObjectiveStatus) -> Vec<String> {
    vec![
        objective.name.clone(),
        wanted(objective),
        status
            .highest_nanoseconds
            .map_or_else(|| NOTHING.to_owned(), duration),
        duration(objective.threshold_microseconds * 1_000),
        status.state.as_str().to_owned(),
    ]
}
