//! Parts are kept apart, and a page is made of all of them.

use super::*;

#[derive(Serialize, Deserialize)]
struct Fast {
    nanoseconds: u64,
}

impl Section for Fast {
    const KEY: &'static str = "fast";

    fn render(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "## Fast\n\n{} ns", self.nanoseconds)
    }

    fn aims(&self) -> Vec<Aim> {
        vec![Aim {
            what: "speed".to_owned(),
            aimed: "<= 7 ns".to_owned(),
            measured: format!("{} ns", self.nanoseconds),
            met: yes_or_no(self.nanoseconds <= 7),
        }]
    }
}

#[derive(Serialize, Deserialize)]
struct Small {
    bytes: u64,
}

impl Section for Small {
    const KEY: &'static str = "small";

    fn render(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "## Small\n\n{} bytes", self.bytes)
    }
}

const PARTS: &[Part] = &[Part::of::<Fast>(), Part::of::<Small>()];

fn page(folder: &Path) -> Page {
    Page {
        title: "Figures",
        intro: "What was measured.",
        json: folder.join("results.json"),
        markdown: folder.join("page.md"),
        parts: PARTS,
        included: &[],
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("maplatency-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_part_that_is_measured_again_leaves_the_others_as_they_are() {
    let folder = Folder::new("again");
    let page = page(&folder.0);
    page.put(Small { bytes: 5 }).unwrap();
    page.put(Fast { nanoseconds: 9 }).unwrap();
    page.put(Fast { nanoseconds: 7 }).unwrap();

    let text = fs::read_to_string(&page.markdown).unwrap();

    assert!(text.contains("5 bytes"), "{text}");
    assert!(text.contains("| speed | <= 7 ns | 7 ns | yes |"), "{text}");
    assert!(!text.contains("9 ns"), "{text}");
}

#[test]
fn parts_come_in_the_order_of_the_page_and_not_of_measuring() {
    let folder = Folder::new("order");
    let page = page(&folder.0);
    page.put(Small { bytes: 5 }).unwrap();
    page.put(Fast { nanoseconds: 9 }).unwrap();

    let text = fs::read_to_string(&page.markdown).unwrap();

    assert!(text.find("## Fast") < text.find("## Small"), "{text}");
    assert_eq!(text.matches("| Kernel |").count(), 1, "one machine: {text}");
}

#[test]
fn a_part_of_a_later_version_stays_in_the_file() {
    let folder = Folder::new("later");
    let page = page(&folder.0);
    fs::write(&page.json, r#"{"unknown": {"figures": [1, 2]}}"#).unwrap();

    page.put(Small { bytes: 5 }).unwrap();

    let file = page.load().unwrap();
    assert_eq!(file["unknown"]["figures"][1], 2);
    assert_eq!(file["small"]["figures"]["bytes"], 5);
}

#[test]
fn a_file_that_is_no_json_is_not_overwritten() {
    let folder = Folder::new("broken");
    let page = page(&folder.0);
    fs::write(&page.json, "{").unwrap();

    let error = page.put(Small { bytes: 5 }).unwrap_err();

    assert!(
        error.to_string().contains("holds no JSON object"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&page.json).unwrap(), "{");
}
