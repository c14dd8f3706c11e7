//! Which releases of PostgreSQL pgslice works with.

use crate::error::{Class, Failure};

/// The oldest release, as `server_version_num` has it. Before 13 there is no `pg_current_snapshot()`.
const OLDEST: i32 = 130_000;
/// Releases from this one on have not been tried.
pub const UNTRIED: i32 = 190_000;

/// Refuses a server that is too old. `side` is "source" or "replica"; `number` is its `server_version_num`.
///
/// # Errors
/// Class Usage.
pub fn check(side: &str, version: &str, number: i32) -> Result<(), Failure> {
    if number >= OLDEST {
        return Ok(());
    }
    Err(Failure::new(Class::Usage, format!("the {side} is PostgreSQL {version}: pgslice works with 13 and later"))
        .meaning("nothing was read or written")
        .next(format!("upgrade the {side}, or replicate it to a newer one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_before_13_are_refused() {
        for (version, number) in [("13.0", 130_000), ("15.18 (Debian)", 150_018), ("19beta1", 190_000)] {
            assert!(check("source", version, number).is_ok(), "{version}");
        }
        let refused = check("replica", "12.22", 120_022).expect_err("too old");
        assert_eq!(refused.class, Class::Usage);
        assert_eq!(refused.what, "the replica is PostgreSQL 12.22: pgslice works with 13 and later");
    }
}
