//! The map commands against the running kernel. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use maplatency_bpf::sys::{
    Error, Map, MapSpec, MapType, NO_PREALLOC, UpdateFlags, map_info, possible_cpus,
};

const ENTRIES: u32 = 1_000;

fn create(name: &str, map_type: MapType, value_size: u32) -> Map {
    Map::create(&MapSpec {
        name,
        map_type,
        key_size: 8,
        value_size,
        max_entries: ENTRIES,
        flags: 0,
    })
    .expect("the kernel tests run as root")
}

/// A map whose entry `n` has the value `n`, on every CPU where it is per CPU.
fn filled(name: &str, map_type: MapType) -> Map {
    let map = create(name, map_type, 8);
    for number in 0..u64::from(ENTRIES) {
        map.update(
            &number.to_ne_bytes(),
            &value(&map, number),
            UpdateFlags::NoExist,
        )
        .unwrap();
    }
    map
}

fn value(map: &Map, number: u64) -> Vec<u8> {
    number.to_ne_bytes().repeat(map.value_size() / 8)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

/// Reads the whole map in batches; the sizes of the batches, and how often each key came.
fn read_in_batches(map: &Map, size: usize) -> (Vec<usize>, BTreeMap<u64, usize>) {
    let mut cursor = map.batch_cursor();
    let mut keys = vec![0; size * map.key_size()];
    let mut values = vec![0; size * map.value_size()];
    let (mut sizes, mut seen) = (Vec::new(), BTreeMap::new());
    loop {
        let batch = map
            .lookup_batch(&mut cursor, &mut keys, &mut values)
            .unwrap();
        sizes.push(batch.count);
        let entries = keys
            .chunks(map.key_size())
            .zip(values.chunks(map.value_size()));
        for (key, got) in entries.take(batch.count) {
            assert_eq!(got, value(map, number(key)));
            *seen.entry(number(key)).or_default() += 1;
        }
        if !batch.more {
            return (sizes, seen);
        }
    }
}

fn every_key_once() -> BTreeMap<u64, usize> {
    (0..u64::from(ENTRIES)).map(|key| (key, 1)).collect()
}

#[test]
fn a_value_written_is_the_value_read() {
    let map = create("sys_rw", MapType::HASH, 12);
    let key = 7_u64.to_ne_bytes();
    let mut value = [0xff; 12];

    let before = map.lookup(&key, &mut value).unwrap();
    map.update(&key, b"hello, world", UpdateFlags::NoExist)
        .unwrap();
    let after = map.lookup(&key, &mut value).unwrap();

    assert_eq!((before, after), (false, true));
    assert_eq!(&value, b"hello, world");
}

#[test]
fn a_missing_entry_leaves_the_buffer_alone() {
    let map = create("sys_miss", MapType::PERCPU_HASH, 8);
    let mut value = vec![0xaa; map.value_size()];

    let found = map.lookup(&[0; 8], &mut value).unwrap();

    assert!(!found);
    assert!(value.iter().all(|&byte| byte == 0xaa));
}

#[test]
fn a_per_cpu_value_holds_every_possible_cpu_and_nothing_past_it() {
    let map = create("sys_percpu", MapType::PERCPU_HASH, 5);
    let cpus = possible_cpus().unwrap();
    assert_eq!(map.value_size(), 8 * cpus);
    let written: Vec<u8> = (0..cpus)
        .flat_map(|cpu| [u8::try_from(cpu % 256).unwrap(); 8])
        .collect();
    map.update(&[1; 8], &written, UpdateFlags::Any).unwrap();

    let mut guarded = vec![0xee; map.value_size() + 64];
    let (value, guard) = guarded.split_at_mut(map.value_size());
    assert!(map.lookup(&[1; 8], value).unwrap());

    for (cpu, slot) in value.chunks(8).enumerate() {
        assert_eq!(slot[..5], [u8::try_from(cpu % 256).unwrap(); 5]);
    }
    assert!(guard.iter().all(|&byte| byte == 0xee));
}

#[test]
fn update_flags_tell_insertion_from_overwriting() {
    let map = create("sys_flags", MapType::HASH, 8);
    let errno = |flags| {
        map.update(&[1; 8], &[1; 8], flags)
            .err()
            .and_then(|error| error.errno())
    };

    assert_eq!(errno(UpdateFlags::Exist), Some(libc::ENOENT));
    assert_eq!(errno(UpdateFlags::NoExist), None);
    assert_eq!(errno(UpdateFlags::NoExist), Some(libc::EEXIST));
    assert_eq!(errno(UpdateFlags::Any), None);
}

#[test]
fn an_entry_is_deleted_once() {
    let map = filled("sys_delete", MapType::HASH);

    assert!(map.delete(&3_u64.to_ne_bytes()).unwrap());
    assert!(!map.delete(&3_u64.to_ne_bytes()).unwrap());
    assert!(!map.lookup(&3_u64.to_ne_bytes(), &mut [0; 8]).unwrap());
}

#[test]
fn stepping_from_key_to_key_visits_each_once() {
    let map = filled("sys_next", MapType::PERCPU_HASH);
    let mut seen = BTreeMap::new();
    let mut next = [0; 8];
    let mut more = map.next_key(None, &mut next).unwrap();

    while more {
        *seen.entry(number(&next)).or_default() += 1;
        let key = next;
        more = map.next_key(Some(&key), &mut next).unwrap();
    }

    assert_eq!(seen, every_key_once());
}

#[test]
fn an_empty_map_has_no_first_key() {
    let map = create("sys_empty", MapType::HASH, 8);

    assert!(!map.next_key(None, &mut [0; 8]).unwrap());
}

#[test]
fn batches_bring_each_entry_of_a_per_cpu_hash_once() {
    let map = filled("sys_batch_hash", MapType::PERCPU_HASH);

    let (sizes, seen) = read_in_batches(&map, 128);

    assert_eq!(seen, every_key_once());
    assert!(sizes.len() > 1, "one batch cannot hold the map: {sizes:?}");
}

#[test]
fn batches_bring_each_entry_of_an_array_once() {
    let map = Map::create(&MapSpec {
        name: "sys_batch_array",
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: ENTRIES,
        flags: 0,
    })
    .unwrap();
    let mut cursor = map.batch_cursor();
    let (mut keys, mut values) = ([0; 4 * 300], [0; 8 * 300]);
    let mut seen = Vec::new();

    loop {
        let batch = map
            .lookup_batch(&mut cursor, &mut keys, &mut values)
            .unwrap();
        let read = keys.chunks_exact(4).take(batch.count);
        seen.extend(read.map(|key| u32::from_ne_bytes(key.try_into().unwrap())));
        if !batch.more {
            break;
        }
    }

    assert!(seen.iter().copied().eq(0..ENTRIES), "{seen:?}");
}

#[test]
fn a_rewound_cursor_reads_the_map_again() {
    let map = filled("sys_rewind", MapType::HASH);
    let mut cursor = map.batch_cursor();
    let mut keys = vec![0; 8 * 2_000];
    let mut values = vec![0; 8 * 2_000];
    let mut read = |cursor: &mut _| {
        map.lookup_batch(cursor, &mut keys, &mut values)
            .unwrap()
            .count
    };

    let first = read(&mut cursor);
    let past_the_end = read(&mut cursor);
    cursor.rewind();
    let again = read(&mut cursor);

    assert_eq!((first, past_the_end, again), (1_000, 0, 1_000));
}

#[test]
fn a_batch_smaller_than_a_bucket_says_so_and_goes_on_with_more_room() {
    // 64 entries in one bucket cannot be arranged from outside, but a batch of one entry meets a
    // bucket of two sooner or later: 1,000 entries live in 1,024 buckets.
    let map = filled("sys_nospace", MapType::HASH);
    let mut cursor = map.batch_cursor();
    let mut keys = [0; 8];
    let mut values = [0; 8];
    let mut before = 0;

    let error = loop {
        match map.lookup_batch(&mut cursor, &mut keys, &mut values) {
            Ok(batch) => before += batch.count,
            Err(error) => break error,
        }
    };
    let (mut keys, mut values) = (vec![0; 8 * 1_000], vec![0; 8 * 1_000]);
    let rest = map
        .lookup_batch(&mut cursor, &mut keys, &mut values)
        .unwrap();

    assert_eq!(error.errno(), Some(libc::ENOSPC), "{error:?}");
    assert!(matches!(error, Error::Batch { done: 0, .. }), "{error:?}");
    assert_eq!(before + rest.count, 1_000);
}

#[test]
fn a_batch_of_updates_writes_them_all() {
    for map_type in [MapType::HASH, MapType::PERCPU_HASH] {
        let map = create("sys_upd_batch", map_type, 8);
        let keys: Vec<u8> = (0..u64::from(ENTRIES)).flat_map(u64::to_ne_bytes).collect();
        let values: Vec<u8> = (0..u64::from(ENTRIES))
            .flat_map(|n| value(&map, n))
            .collect();

        map.update_batch(&keys, &values, UpdateFlags::Any).unwrap();

        assert_eq!(read_in_batches(&map, 200).1, every_key_once());
    }
}

#[test]
fn a_batch_of_updates_that_outgrows_the_map_says_how_many_it_wrote() {
    let map = Map::create(&MapSpec {
        name: "sys_full",
        map_type: MapType::HASH,
        key_size: 8,
        value_size: 8,
        max_entries: 10,
        flags: NO_PREALLOC,
    })
    .unwrap();
    let keys: Vec<u8> = (0..16_u64).flat_map(u64::to_ne_bytes).collect();

    let error = map
        .update_batch(&keys, &keys, UpdateFlags::Any)
        .unwrap_err();

    assert_eq!(error.errno(), Some(libc::E2BIG));
    assert!(matches!(error, Error::Batch { done: 10, .. }), "{error:?}");
}

#[test]
fn what_is_read_and_deleted_is_gone() {
    for map_type in [MapType::HASH, MapType::PERCPU_HASH] {
        let map = filled("sys_take", map_type);
        let key = 7_u64.to_ne_bytes();
        let mut taken = vec![0; map.value_size()];

        assert!(map.lookup_and_delete(&key, &mut taken).unwrap());
        assert_eq!(taken, value(&map, 7));
        assert!(!map.lookup_and_delete(&key, &mut taken).unwrap());

        let mut keys = vec![0; 2_000 * map.key_size()];
        let mut values = vec![0; 2_000 * map.value_size()];
        let batch = map
            .lookup_and_delete_batch(&mut map.batch_cursor(), &mut keys, &mut values)
            .unwrap();
        assert_eq!(batch.count, ENTRIES as usize - 1);
        assert!(!map.next_key(None, &mut [0; 8]).unwrap());
    }
}

#[test]
fn a_batch_of_deletions_stops_at_a_key_that_is_not_there() {
    let map = filled("sys_del_batch", MapType::HASH);
    let keys: Vec<u8> = (0..10_u64).flat_map(u64::to_ne_bytes).collect();

    assert!(map.delete_batch(&keys).unwrap());
    assert!(!map.delete_batch(&keys).unwrap());
    assert!(!map.lookup(&9_u64.to_ne_bytes(), &mut [0; 8]).unwrap());
    assert!(map.lookup(&10_u64.to_ne_bytes(), &mut [0; 8]).unwrap());
}

#[test]
fn a_map_describes_itself() {
    let map = create("sys_info", MapType::PERCPU_HASH, 5);

    let info = map_info(map.as_fd()).unwrap();

    assert_eq!(info.name, "sys_info");
    assert_eq!(info.map_type, MapType::PERCPU_HASH);
    assert_eq!((info.key_size, info.value_size), (8, 5));
    assert_eq!((info.max_entries, info.flags), (ENTRIES, 0));
    assert_eq!(info.id, map.id().unwrap());
    assert_ne!(info.id, 0);
}

#[test]
fn a_map_found_by_its_id_is_the_same_map_but_cannot_be_changed() {
    let map = filled("sys_by_id", MapType::PERCPU_HASH);

    let found = Map::from_id(map.id().unwrap()).unwrap();
    let mut got = vec![0; found.value_size()];

    assert!(found.lookup(&42_u64.to_ne_bytes(), &mut got).unwrap());
    assert_eq!(got, value(&map, 42));
    let refused = found
        .update(&[1; 8], &got, UpdateFlags::Any)
        .unwrap_err()
        .errno();
    assert_eq!(refused, Some(libc::EPERM));
}

#[test]
fn a_map_that_is_gone_cannot_be_opened_by_its_id() {
    let error = Map::from_id(u32::MAX).unwrap_err();

    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert!(matches!(error, Error::Open { id: u32::MAX, .. }));
}

#[test]
fn a_queue_has_no_key_and_is_read_with_none() {
    let map = Map::create(&MapSpec {
        name: "sys_queue",
        map_type: MapType::QUEUE,
        key_size: 0,
        value_size: 8,
        max_entries: 4,
        flags: 0,
    })
    .unwrap();
    let mut value = [0; 8];

    assert!(!map.lookup(&[], &mut value).unwrap());
    map.update(&[], &9_u64.to_ne_bytes(), UpdateFlags::Any)
        .unwrap();
    assert!(map.lookup(&[], &mut value).unwrap());
    assert_eq!(number(&value), 9);
}
