use proptest::prelude::*;

use super::*;

/// Foreign keys, child first.
fn order(foreign_keys: &[(u32, u32)], oids: &[u32]) -> Vec<u32> {
    Shape { foreign_keys: foreign_keys.to_vec(), ..Shape::default() }.parents_first(oids.to_vec())
}

#[test]
fn without_foreign_keys_the_order_given_stands() {
    assert_eq!(order(&[], &[3, 1, 2]), [3, 1, 2]);
    assert!(order(&[(1, 2)], &[]).is_empty());
}

#[test]
fn parents_come_before_children_over_several_steps() {
    assert_eq!(order(&[(1, 2), (2, 3)], &[1, 2, 3]), [3, 2, 1]);
}

#[test]
fn the_child_of_a_diamond_comes_last_and_its_root_first() {
    assert_eq!(order(&[(4, 2), (4, 3), (2, 1), (3, 1)], &[4, 3, 2, 1]), [1, 3, 2, 4]);
}

#[test]
fn a_table_that_points_at_itself_waits_for_nothing() {
    assert_eq!(order(&[(1, 1), (2, 1), (2, 2)], &[2, 1]), [1, 2]);
}

#[test]
fn a_parent_outside_the_transaction_is_waited_for_by_nobody() {
    assert_eq!(order(&[(1, 9), (2, 1)], &[2, 1]), [1, 2]);
}

#[test]
fn a_circle_keeps_the_order_given() {
    assert_eq!(order(&[(1, 2), (2, 1)], &[2, 1]), [2, 1]);
    assert_eq!(order(&[(1, 2), (2, 1)], &[1, 2]), [1, 2]);
}

#[test]
fn what_hangs_on_a_circle_comes_after_it_and_what_it_hangs_on_before() {
    // 3 and 4 point at each other and at 5; 1 points at 3.
    assert_eq!(order(&[(3, 4), (4, 3), (4, 5), (1, 3)], &[1, 3, 4, 5]), [5, 3, 1, 4]);
}

proptest! {
    #[test]
    fn every_table_is_placed_once_and_no_child_before_a_parent_unless_they_are_in_a_circle(
        foreign_keys in proptest::collection::vec((0..9_u32, 0..9_u32), 0..20),
        oids in proptest::sample::subsequence((0..9_u32).collect::<Vec<_>>(), 0..9).prop_shuffle(),
    ) {
        let shape = Shape { foreign_keys: foreign_keys.clone(), ..Shape::default() };
        let ordered = shape.parents_first(oids.clone());
        let mut sorted = (ordered.clone(), oids.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        prop_assert_eq!(sorted.0, sorted.1);
        let place = |oid: u32| ordered.iter().position(|other| *other == oid);
        // `from` reaches `to` by way of tables of the transaction.
        let reaches = |from: u32, to: u32| {
            let mut seen = vec![from];
            let mut index = 0;
            while index < seen.len() {
                for (child, parent) in &foreign_keys {
                    if *child == seen[index] && oids.contains(parent) && !seen.contains(parent) {
                        seen.push(*parent);
                    }
                }
                index += 1;
            }
            seen.contains(&to)
        };
        for (child, parent) in &foreign_keys {
            if let (Some(below), Some(above)) = (place(*child), place(*parent)) {
                prop_assert!(above <= below || reaches(*parent, *child), "{:?} {:?}", foreign_keys, ordered);
            }
        }
    }
}
