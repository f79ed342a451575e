//! What is refused before it reaches the kernel.

use super::*;

/// A map that no system call reaches: its descriptor is not a map, and checks come first.
fn unreachable_map(key_size: usize, value_size: usize) -> Map {
    Map {
        fd: std::fs::File::open("/dev/null").unwrap().into(),
        key_size,
        value_size,
    }
}

fn buffer_error<T: std::fmt::Debug>(outcome: Result<T>) -> (Buffer, usize, usize) {
    match outcome {
        Err(Error::BufferLength {
            buffer,
            expected,
            actual,
        }) => (buffer, expected, actual),
        other => panic!("expected a refused buffer, got {other:?}"),
    }
}

#[test]
fn a_per_cpu_value_is_rounded_up_and_repeated_for_every_possible_cpu() {
    let cpus = possible_cpus().unwrap();
    let size = |map_type, bytes| user_value_size(map_type, bytes).unwrap();

    assert_eq!(size(MapType::PERCPU_HASH, 4), 8 * cpus);
    assert_eq!(size(MapType::LRU_PERCPU_HASH, 8), 8 * cpus);
    assert_eq!(size(MapType::PERCPU_ARRAY, 9), 16 * cpus);
    assert_eq!(size(MapType::HASH, 9), 9);
}

#[test]
fn a_buffer_of_another_length_never_reaches_the_kernel() {
    let map = unreachable_map(8, 16);

    let lookup = buffer_error(map.lookup(&[0; 7], &mut [0; 16]));
    let short_value = buffer_error(map.lookup(&[0; 8], &mut [0; 8]));
    let update = buffer_error(map.update(&[0; 8], &[0; 17], UpdateFlags::Any));
    let delete = buffer_error(map.delete(&[]));
    let next = buffer_error(map.next_key(None, &mut [0; 4]));
    let next_of = buffer_error(map.next_key(Some(&[0; 9]), &mut [0; 8]));

    assert_eq!(lookup, (Buffer::Key, 8, 7));
    assert_eq!(short_value, (Buffer::Value, 16, 8));
    assert_eq!(update, (Buffer::Value, 16, 17));
    assert_eq!(delete, (Buffer::Key, 8, 0));
    assert_eq!(next, (Buffer::Key, 8, 4));
    assert_eq!(next_of, (Buffer::Key, 8, 9));
}

#[test]
fn the_buffers_of_a_batch_agree_on_the_number_of_entries() {
    let map = unreachable_map(8, 16);
    let mut cursor = map.batch_cursor();

    let torn_key = buffer_error(map.lookup_batch(&mut cursor, &mut [0; 20], &mut [0; 32]));
    let few_values = buffer_error(map.lookup_batch(&mut cursor, &mut [0; 24], &mut [0; 32]));
    let update = buffer_error(map.update_batch(&[0; 16], &[0; 48], UpdateFlags::Any));

    assert_eq!(torn_key, (Buffer::Key, 16, 20));
    assert_eq!(few_values, (Buffer::Value, 48, 32));
    assert_eq!(update, (Buffer::Value, 32, 48));
}

#[test]
fn a_cursor_of_another_map_is_refused() {
    let mut cursor = unreachable_map(4, 16).batch_cursor();
    let map = unreachable_map(8, 16);

    let outcome = map.lookup_batch(&mut cursor, &mut [0; 8], &mut [0; 16]);

    assert!(matches!(outcome, Err(Error::ForeignCursor { .. })));
}

#[test]
fn what_is_no_map_is_an_error_and_not_a_missing_entry() {
    let error = unreachable_map(8, 16)
        .lookup(&[0; 8], &mut [0; 16])
        .unwrap_err();

    assert!(error.errno().is_some());
}

#[test]
fn names_that_the_kernel_would_refuse_are_refused_with_the_rule() {
    assert!(object_name("demo_conntrack").is_ok());
    assert!(object_name("fifteen.chars_1").is_ok());
    assert!(object_name("").is_ok());
    for name in ["sixteen_chars_16", "has space", "dash-ed", "ümlaut"] {
        assert!(
            matches!(object_name(name), Err(Error::Name { .. })),
            "{name:?}"
        );
    }
}
