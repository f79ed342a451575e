//! Kernel side and user side put a latency into the same bucket.

use std::io::Write as _;
use std::process::{Command, Stdio};

use maplatency_core::histogram::{OVERFLOW, bucket_of, lower_bound};

#[test]
fn the_kernel_side_finds_the_same_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("histogram");
    // The C compiler that links this test's own binary; the header is plain C.
    let built = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/histogram.c"))
        .status()
        .unwrap();
    assert!(built.success());

    // Both sides of every boundary, and what lies beyond the last one.
    let mut values: Vec<u64> = (0..=OVERFLOW)
        .flat_map(|it| {
            [
                lower_bound(it).saturating_sub(1),
                lower_bound(it),
                lower_bound(it) + 1,
            ]
        })
        .collect();
    values.extend([u64::MAX, 1 << 40, (1 << 35) + 12345]);
    let lines: Vec<String> = values.iter().map(ToString::to_string).collect();
    let input = lines.join("\n");

    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Written beside the reading: the pipe holds less than all the answers.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();

    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<u16> = answers.lines().map(|it| it.parse().unwrap()).collect();
    assert_eq!(answers.len(), values.len());
    for (value, answer) in values.into_iter().zip(answers) {
        assert_eq!(answer, bucket_of(value), "{value}");
    }
}
