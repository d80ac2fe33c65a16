//! Numbers and times as people read them in narrow columns.

use std::time::Duration;

/// Bytes in at most five characters: `0`, `999`, `1.5K`, `64M`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["", "K", "M", "G", "T", "P", "E"])
}

/// A count in at most five characters.
pub fn count(n: f64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

fn scaled(mut n: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n >= 999.5 && unit + 1 < units.len() {
        n /= step;
        unit += 1;
    }
    match unit > 0 && n < 9.95 {
        true => format!("{n:.1}{}", units[unit]),
        false => format!("{n:.0}{}", units[unit]),
    }
}

/// A short time: `0`, `37us`, `1.5ms`, `12s`.
pub fn latency(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0 => "0".to_owned(),
        ..999.5 => format!("{micros:.0}us"),
        ..9_950.0 => format!("{:.1}ms", micros / 1e3),
        ..999_500.0 => format!("{:.0}ms", micros / 1e3),
        ..9_950_000.0 => format!("{:.1}s", micros / 1e6),
        _ => format!("{:.0}s", micros / 1e6),
    }
}

/// A long time: `5 s`, `3 min`, `2 h 5 min`, `4 d 1 h`.
pub fn age(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs / 60 % 60),
        _ => format!("{} d {} h", secs / 86_400, secs / 3600 % 24),
    }
}

/// Seconds since 1970 as `2026-11-21T19:50:03.123456Z`, the microseconds given apart.
pub fn time(seconds: i64, micros: u32) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{micros:06}Z")
}

/// The date of a day since 1970-01-01. Years begin in March here, so that the leap day is their last;
/// the calendar repeats every 400 of them, which are 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_numbers() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (64 << 20, "64M"),
            (1023 << 20, "1.0G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(count(1234.0), "1.2k");
        assert_eq!(count(0.4), "0");
    }

    #[test]
    fn narrow_times() {
        for (micros, text) in [
            (0, "0"),
            (37, "37us"),
            (1_500, "1.5ms"),
            (15_000, "15ms"),
            (1_500_000, "1.5s"),
            (75_000_000, "75s"),
        ] {
            assert_eq!(latency(Duration::from_micros(micros)), text);
        }
        assert_eq!(age(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(age(Duration::from_secs(7500)), "2 h 5 min");
        assert_eq!(age(Duration::from_secs(90_000)), "1 d 1 h");
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000007Z"),
            (1_767_225_600, "2026-01-01T00:00:00.000007Z"),
            (-1, "1969-12-31T23:59:59.000007Z"),
        ] {
            assert_eq!(time(seconds, 7), text);
        }
    }
}
