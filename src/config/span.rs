//! Lengths of time as people write them: one whole number and one unit, `"15m"` or `"3d"`.

use chrono::TimeDelta;

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// The longest span that is accepted, about 10,000 years: far below what instants and dates can be moved by.
const MAX_DAYS: u64 = 3_650_000;

/// A length of time: a whole number and one of `s`, `m`, `h`, `d` (24 hours) and `w`. Zero is allowed.
///
/// # Errors
/// When the text is anything else or more than 3,650,000 days; the message shows an example of what is right.
pub fn parse_span(text: &str) -> Result<TimeDelta, String> {
    const UNITS: [(&str, u64); 5] = [("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY), ("w", WEEK)];
    let (number, unit) = split(text).ok_or_else(|| not_a_span(text))?;
    if unit.is_empty() {
        return Err(format!(
            "{text:?} lacks its unit (s, m, h, d or w): say \"{text}m\" for minutes, \"{text}d\" for days"
        ));
    }
    let (_, unit_secs) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| not_a_span(text))?;
    let secs = multiply(number, unit_secs, MAX_DAYS * DAY).ok_or_else(|| too_long(text))?;
    i64::try_from(secs).ok().and_then(TimeDelta::try_seconds).ok_or_else(|| too_long(text))
}

/// A number of calendar days: a whole number and one of `d` and `w`. Zero is allowed.
///
/// # Errors
/// When the text is anything else or more than 3,650,000 days; the message shows an example of what is right.
pub fn parse_days(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 2] = [("d", 1), ("w", 7)];
    let (number, unit) = split(text).ok_or_else(|| not_days(text))?;
    if unit.is_empty() {
        return Err(format!("{text:?} lacks its unit: say \"{text}d\" for days"));
    }
    let (_, unit_days) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| not_days(text))?;
    multiply(number, unit_days, MAX_DAYS).ok_or_else(|| too_long(text))
}

/// The digits that `text` starts with, and what follows them; `None` without digits, or when the text is too long to
/// be worth repeating in a message.
fn split(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && text.len() <= 40).then(|| text.split_at(digits))
}

fn multiply(number: &str, unit: u64, limit: u64) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|product| *product <= limit)
}

fn not_a_span(text: &str) -> String {
    format!(
        "{:?} is not a length of time: write one whole number and one unit (s, m, h, d or w), such as \"15m\" or \"48h\"",
        shown(text)
    )
}

fn not_days(text: &str) -> String {
    format!("{:?} is not a number of whole days: write days or weeks, such as \"15d\" or \"2w\"", shown(text))
}

fn too_long(text: &str) -> String {
    format!("{text:?} is more than {MAX_DAYS} days: write something shorter, such as \"15d\"")
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_one_number_and_one_unit() {
        for (text, span) in [
            ("90s", TimeDelta::seconds(90)),
            ("15m", TimeDelta::minutes(15)),
            ("48h", TimeDelta::hours(48)),
            ("3d", TimeDelta::days(3)),
            ("2w", TimeDelta::days(14)),
            ("0s", TimeDelta::zero()),
            ("007m", TimeDelta::minutes(7)),
            ("3650000d", TimeDelta::days(3_650_000)),
        ] {
            assert_eq!(parse_span(text), Ok(span), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_right_example() {
        let long = "1".repeat(500);
        for text in [
            "",
            "15",
            "m",
            "-1d",
            "+1d",
            "1.5h",
            "1d2h",
            "1 d",
            " 1d",
            "1d ",
            "15M",
            "15min",
            "1ms",
            "１d",
            "1d\n",
            "3650001d",
            "99999999999999999999s",
            "18446744073709551615w",
            &long,
        ] {
            let refusal = parse_span(text).expect_err(text);
            let example = refusal.rsplit('"').nth(1).expect("an example in quotes");
            assert!(parse_span(example).is_ok(), "{refusal}");
            assert!(refusal.len() < 300, "{refusal}");
        }
    }

    #[test]
    fn days_are_whole() {
        for (text, days) in [("15d", 15), ("2w", 14), ("0d", 0), ("3650000d", 3_650_000)] {
            assert_eq!(parse_days(text), Ok(days), "{text}");
        }
    }

    #[test]
    fn what_is_not_whole_days_is_refused_with_a_right_example() {
        for text in
            ["", "15", "48h", "15m", "-1d", "1.5d", "1w2d", "1 d", "d", "3650001d", "600000w", "99999999999999999999d"]
        {
            let refusal = parse_days(text).expect_err(text);
            let example = refusal.rsplit('"').nth(1).expect("an example in quotes");
            assert!(parse_days(example).is_ok(), "{refusal}");
        }
    }

    #[test]
    fn a_bare_number_is_told_its_unit() {
        assert!(parse_days("15").expect_err("no unit").contains("say \"15d\""));
        assert!(parse_span("15").expect_err("no unit").contains("say \"15m\""));
    }
}
