//! `%timeit`: times an expression over many runs, as IPython does.

use std::time::{Duration, Instant};

/// How many batches are timed.
const BATCHES: usize = 7;
/// The shortest time of a batch, unless a single run of the expression takes longer.
const BATCH: Duration = Duration::from_millis(100);

/// Runs the expression often enough to time it, and prints the time of one run. `level` is the optimisation level of the code.
pub fn repeat<T>(level: &str, mut expression: impl FnMut() -> T) {
    let mut batch = |loops: u32| {
        let start = Instant::now();
        for _ in 0..loops {
            std::hint::black_box(expression());
        }
        start.elapsed()
    };
    let mut loops = 1;
    // An expression that is too short to time needs more runs in a batch.
    let mut first = batch(loops);
    while first < BATCH && loops < 1_000_000_000 {
        loops *= 10;
        first = batch(loops);
    }
    let times: Vec<f64> = std::iter::once(first)
        .chain((1..BATCHES).map(|_| batch(loops)))
        .map(|time| time.as_secs_f64() / f64::from(loops))
        .collect();
    let hint = if level == "0" {
        "\nThe code is not optimised: `:opt 3` in a line above times it as a finished program runs."
    } else {
        ""
    };
    crate::output::print_for(0, false, format_args!("{}{hint}\n", told(&times, loops)));
}

fn told(times: &[f64], loops: u32) -> String {
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let deviation = (times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / count).sqrt();
    let runs = times.len();
    let each = if loops == 1 { "1 loop".to_owned() } else { format!("{loops} loops") };
    format!("{} ± {} per loop (mean ± std. dev. of {runs} runs, {each} each)", seconds(mean), seconds(deviation))
}

/// The time with three digits and a suitable unit.
fn seconds(time: f64) -> String {
    let (value, unit) = match time {
        _ if time >= 1.0 => (time, "s"),
        _ if time >= 1e-3 => (time * 1e3, "ms"),
        _ if time >= 1e-6 => (time * 1e6, "µs"),
        _ => (time * 1e9, "ns"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_and_the_deviation_are_told_in_fitting_units() {
        let told = told(&[1e-6, 3e-6], 10);
        assert_eq!(told, "2.00 µs ± 1.00 µs per loop (mean ± std. dev. of 2 runs, 10 loops each)");
        assert_eq!(
            (seconds(0.1234), seconds(12.34), seconds(4.2e-9)),
            ("123 ms".into(), "12.3 s".into(), "4.20 ns".into())
        );
    }

    #[test]
    fn a_slow_expression_runs_once_in_each_batch() {
        let mut runs = 0;
        repeat("3", || {
            runs += 1;
            std::thread::sleep(BATCH);
        });
        assert_eq!(runs, BATCHES);
    }
}
