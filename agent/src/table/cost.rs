//! What the agent costs, in one line.

use k8s_openapi::jiff::Timestamp;
use maplatency_core::budget::Shed;
use maplatency_core::cost::{BpfRunTime, Cost, CpuTime};
use maplatency_core::units;

use super::NOTHING;

/// The line, with its newline. `None` before anything is known.
pub(super) fn line(cost: &Cost) -> Option<String> {
    if *cost == Cost::default() {
        return None;
    }
    let Cost {
        cpu,
        rss_bytes,
        bpf_maps_bytes,
        bpf_programs_bytes: _,
        bpf_run_time,
    } = cost;
    let memory = |bytes: &Option<u64>| bytes.map_or_else(|| NOTHING.to_owned(), units::bytes);
    Some(format!(
        "This agent: {}, RSS {}, BPF maps {}; {}\n",
        cpu_text(cpu.as_ref()),
        memory(rss_bytes),
        memory(bpf_maps_bytes),
        run_text(bpf_run_time.as_ref()),
    ))
}

/// A line for each step by which the agent leaves something out. `None` if there is none.
pub(super) fn shed(shed: &[Shed]) -> Option<String> {
    let line = |it: &Shed| {
        let since = Timestamp::from_microsecond(it.since_unix_microseconds).unwrap_or_default();
        format!(
            "{it} since {} UTC, to stay within the {} budget: {}\n",
            since.strftime("%H:%M:%S"),
            it.resource.as_str(),
            it.meaning()
        )
    };
    (!shed.is_empty()).then(|| format!("\nLEFT OUT\n{}", shed.iter().map(line).collect::<String>()))
}

fn cpu_text(cpu: Option<&CpuTime>) -> String {
    let Some(cpu) = cpu else {
        return format!("CPU {NOTHING}");
    };
    let all = units::share(cpu.parts_per_million());
    match cpu.readers_parts_per_million() {
        Some(readers @ 1..) => format!("CPU {all} (readers {})", units::share(readers)),
        _ => format!("CPU {all}"),
    }
}

fn run_text(run: Option<&BpfRunTime>) -> String {
    let Some(run) = run else {
        return format!("hooks ran {NOTHING}");
    };
    let share = units::share(run.parts_per_million());
    match run.mean_nanoseconds() {
        Some(mean) => format!(
            "hooks ran {share} of a core, {} a run",
            units::duration(mean)
        ),
        None => format!("hooks ran {share} of a core"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        cpu: Some(CpuTime {
            period_nanoseconds: 10_000_000_000,
            total_nanoseconds: 31_000_000,
            readers_nanoseconds: Some(0),
        }),
        rss_bytes: Some(14_784_922),
        bpf_maps_bytes: Some(6_393_856),
        bpf_programs_bytes: Some(40_960),
        bpf_run_time: Some(BpfRunTime {
            span_nanoseconds: 100_000_000,
            run_nanoseconds: 1_248_000,
            runs: 4_000,
        }),
    };

    #[test]
    fn the_cost_is_one_line() {
        assert_eq!(
            line(&COST).unwrap(),
            "This agent: CPU 0.31%, RSS 14.1MiB, BPF maps 6.10MiB; hooks ran 1.2% of a core, 312ns a run\n"
        );
    }

    #[test]
    fn what_is_left_out_is_told_with_its_reason() {
        use maplatency_core::budget::{Resource, Step};

        let step = Shed {
            step: Step::Sampling,
            resource: Resource::Cpu,
            since_unix_microseconds: 43_203_000_000,
            one_in: 8,
        };
        assert_eq!(
            shed(&[step]).unwrap(),
            "\nLEFT OUT\nSampling 1/8 since 12:00:03 UTC, to stay within the CPU budget: one operation in 8 is counted, \
             by chance, for all of them; counts are estimates, and rare slow operations may be missed\n"
        );
        assert_eq!(shed(&[]), None);
    }

    #[test]
    fn readers_show_where_there_are_any() {
        let mut cost = COST;
        cost.cpu.as_mut().unwrap().readers_nanoseconds = Some(12_000_000);
        let text = line(&cost).unwrap();
        assert!(text.contains("CPU 0.31% (readers 0.12%), RSS"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_no_zero() {
        let cost = Cost {
            rss_bytes: Some(1 << 20),
            ..Cost::default()
        };
        assert_eq!(
            line(&cost).unwrap(),
            "This agent: CPU -, RSS 1.00MiB, BPF maps -; hooks ran -\n"
        );
        assert_eq!(line(&Cost::default()), None);
    }
}
