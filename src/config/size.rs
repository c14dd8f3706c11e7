//! Sizes as people write them: one whole number and one unit, `"16MiB"`; and rates, `"50MB/s"`.

const UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A number of bytes: a whole number and one of `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` and `GiB`.
///
/// # Errors
/// When the text is anything else or more than `u64` holds; the message shows an example of what is right.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    bytes(text).ok_or_else(|| {
        format!("{:?} is not a size: write one whole number and one unit, such as \"16MiB\" or \"20MB\"", shown(text))
    })
}

/// Bytes per second: a size and `/s`; never zero.
///
/// # Errors
/// As [`parse_size`].
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    text.strip_suffix("/s").and_then(bytes).filter(|rate| *rate > 0).ok_or_else(|| {
        format!("{:?} is not a rate: write a size per second, more than zero, such as \"50MB/s\"", shown(text))
    })
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit_bytes) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(unit_bytes)
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_number_and_one_unit() {
        for (text, size) in
            [("16MiB", 16 << 20), ("5MB", 5_000_000), ("1GiB", 1 << 30), ("2kB", 2_000), ("1KiB", 1_024), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_right_example() {
        for text in
            ["", "16", "MiB", "16 MiB", "16mib", "1.5GiB", "-1MiB", "16M", "99999999999999999999B", "9999999999999GiB"]
        {
            let refusal = parse_size(text).expect_err(text);
            let example = refusal.rsplit('"').nth(1).expect("an example in quotes");
            assert!(parse_size(example).is_ok(), "{refusal}");
        }
    }

    #[test]
    fn a_rate_is_a_size_per_second_and_never_zero() {
        assert_eq!(parse_rate("50MB/s"), Ok(50_000_000));
        for text in ["50MB", "0MB/s", "50MB/m", "/s", "50 MB/s"] {
            let refusal = parse_rate(text).expect_err(text);
            let example = refusal.rsplit('"').nth(1).expect("an example in quotes");
            assert!(parse_rate(example).is_ok(), "{refusal}");
        }
    }
}
