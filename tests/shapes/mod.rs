//! Tables as people really have them, on either side: PostgreSQL itself says whether both sides are equal.

mod constraints;
mod guards;
mod keys;
mod names;
mod partitions;
mod sizes;

use crate::pair::Pair;
use crate::scene::Ran;

/// Runs a catchup that must exit with `code`, say all of `words`, and change no row.
#[track_caller]
fn refuses(pair: &Pair, code: i32, words: &[&str]) -> Ran {
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]).exits(code);
    for word in words {
        assert!(refused.stderr.contains(word), "{word} in\n{refused}");
    }
    assert_eq!(pair.replica_rows(), before, "{refused}");
    refused
}
