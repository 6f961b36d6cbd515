//! Figures: what was measured, the floor beside it, the aim, and how it was measured.

use crate::screen;
use std::time::Duration;

/// Something that was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// What banger takes or reaches, with its unit.
    pub ours: String,
    /// What the floor takes or reaches; empty where there is none.
    pub floor: String,
    /// The number that the aim is about: a ratio where there is a floor.
    pub value: f64,
    /// What is aimed for; none where it is told for comparison only.
    pub aim: Option<Aim>,
    /// How it was measured, as a sentence.
    pub how: String,
}

/// What is aimed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// This at most, in the unit.
    AtMost(f64, &'static str),
    /// This at least, in the unit.
    AtLeast(f64, &'static str),
}

impl Aim {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit, _) => value <= limit,
            Self::AtLeast(limit, _) => value >= limit,
        }
    }
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, limit, unit) = match self {
            Self::AtMost(limit, unit) => ("≤", limit, unit),
            Self::AtLeast(limit, unit) => ("≥", limit, unit),
        };
        write!(f, "{sign} {limit}")?;
        if unit.is_empty() {
            Ok(())
        } else {
            write!(f, " {unit}")
        }
    }
}

/// The middle of the times; of an even number of them, the later of the two.
pub fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The time that so many of a hundred do not exceed.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() * percent).div_ceil(100).max(1) - 1;
    times.get(at).copied().unwrap_or_default()
}

/// The fastest and the slowest, for a person.
pub fn spread(times: &[Duration]) -> String {
    let fastest = times.iter().min().copied().unwrap_or_default();
    let slowest = times.iter().max().copied().unwrap_or_default();
    format!("{} to {}", fine(fastest), fine(slowest))
}

/// A duration with a decimal where it is short.
pub fn fine(time: Duration) -> String {
    if time < Duration::from_millis(100) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        screen::duration(time)
    }
}

/// The table, then how each figure was measured.
pub fn report(figures: &[Figure]) -> String {
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|figure| {
            let ratio = if figure.floor.is_empty() {
                String::new()
            } else {
                format!("{:.2}", figure.value)
            };
            let (aim, reached) = match figure.aim {
                Some(aim) if aim.is_reached(figure.value) => (aim.to_string(), "reached"),
                Some(aim) => (aim.to_string(), "missed"),
                None => (String::new(), ""),
            };
            vec![
                figure.name.clone(),
                figure.ours.clone(),
                figure.floor.clone(),
                ratio,
                aim,
                reached.to_owned(),
            ]
        })
        .collect();
    let mut report = screen::table(&["figure", "banger", "floor", "ratio", "aim", ""], &rows);
    report.push_str("\n\nHow it was measured:");
    for figure in figures {
        report.push_str(&format!("\n- {}: {}", figure.name, figure.how));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let times = [5, 1, 9, 2, 3].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_millis(3));
        assert_eq!(median(&[]), Duration::ZERO);
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&hundred, 95), Duration::from_millis(95));
        assert_eq!(percentile(&times, 95), Duration::from_millis(9));
        assert_eq!(percentile(&[], 95), Duration::ZERO);
    }

    #[test]
    fn a_report_says_what_is_missed() {
        let figure = |value| Figure {
            name: "boot".into(),
            ours: "2 s".into(),
            floor: "1 s".into(),
            value,
            aim: Some(Aim::AtMost(1.1, "")),
            how: "so".into(),
        };
        assert!(report(&[figure(1.1)]).contains("1.10  ≤ 1.1  reached"));
        assert!(report(&[figure(1.2)]).contains("1.20  ≤ 1.1  missed"));
    }
}
