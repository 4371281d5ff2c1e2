//! Progress bars and live plots as a kernel receives them: not too often, replaced in place, and complete at the end.

use std::process::Command;
use std::time::{Duration, Instant};

use wavemesh::notebook::{LivePlot, progress};

const CHILD: &str = "WAVEMESH_TEST_CHILD";

/// Shows nested bars with thousands of steps a second, for the other tests to watch. Alone it tests nothing.
#[test]
fn bars() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    for _ in progress(0..5).label("outer") {
        for (bar, step) in progress(0..400).label("inner").with_bar() {
            bar.set_postfix(format!("step {step}"));
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Shows a plot that outlives its cell, like a variable of a notebook.
#[test]
fn plot() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let mut plot = LivePlot::new("fit");
    (0..50).for_each(|step| plot.push("loss", f64::from(step)));
    std::thread::sleep(Duration::from_millis(1200));
    std::mem::forget(plot);
}

/// The messages that a test of this file sends when a kernel runs it, and the seconds it took.
fn frames_of(test: &str) -> (Vec<serde_json::Value>, f64) {
    let start = Instant::now();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("WAVEMESH_FRAME_TOKEN", "t")
        .output()
        .unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let output = String::from_utf8(run.stdout).unwrap();
    let frame = |frame: &str| {
        let (length, payload) = frame.split_once('\n').unwrap();
        serde_json::from_str(&payload[..length.parse().unwrap()]).unwrap()
    };
    (output.split("\u{1b}_WMSH:t:").skip(1).map(frame).collect(), seconds)
}

fn text(frame: &serde_json::Value) -> String {
    frame["content"]["data"]["text/plain"].as_str().unwrap().to_owned()
}

#[test]
fn the_last_points_of_a_plot_are_drawn_though_it_lives_on() {
    let (frames, seconds) = frames_of("plot");
    assert!((2..=2 + (2.0 * seconds) as usize).contains(&frames.len()), "{} frames in {seconds} s", frames.len());
    assert_eq!(text(&frames[frames.len() - 1]), "fit | loss 49 at step 49");
}

#[test]
fn fast_nested_bars_send_at_most_ten_updates_a_second_and_end_complete() {
    let (frames, seconds) = frames_of("bars");
    let kinds: Vec<&str> = frames.iter().map(|frame| frame["msg_type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "display_data");
    assert!(kinds[1..].iter().all(|kind| *kind == "update_display_data"), "{kinds:?}");
    let id = |frame: &serde_json::Value| frame["content"]["transient"]["display_id"].clone();
    assert!(frames.iter().all(|frame| id(frame) == id(&frames[0])));
    assert!(frames.len() > 3, "only {} frames in {seconds} s", frames.len());
    assert!(frames.len() as f64 <= 10.0 * seconds + 2.0, "{} frames in {seconds} s", frames.len());

    assert!(
        frames.iter().any(|frame| text(frame).contains("outer")
            && text(frame).contains("inner")
            && text(frame).contains("step "))
    );
    let last = text(&frames[frames.len() - 1]);
    assert!(last.starts_with("outer: 100%|") && last.contains("5/5") && !last.contains("inner"), "{last}");
}
