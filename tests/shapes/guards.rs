//! Row security, rules, triggers and stricter constraints of the replica.

use super::refuses;
use crate::pair::{NOTES, NOTES_TABLE, Pair, rows};

fn published() -> Pair {
    let pair = Pair::of_notes(2);
    pair.export_range("2024-05-01", "2024-05-02");
    pair
}

#[test]
fn a_role_that_policies_hide_rows_from_is_refused() {
    let pair = published();
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let name = format!("limited_{}", pair.replica.name);
    pair.replica.psql(&format!(
        "CREATE ROLE {name} LOGIN; GRANT ALL ON notes TO {name}; GRANT ALL ON SCHEMA pgslice TO {name};
         GRANT ALL ON ALL TABLES IN SCHEMA pgslice TO {name}; GRANT TEMPORARY ON DATABASE \"{}\" TO {name};
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON notes USING (id < 103)",
        pair.replica.name
    ));
    let url = format!("--replica={}", pair.replica.url.replace("user=postgres", &format!("user={name}")));
    let before = pair.replica_rows();
    let refused = pair.catchup(&[&url]).exits(6);
    for words in ["row-level security of public.notes on the replica", "bypassrls"] {
        assert!(refused.stderr.contains(words), "{words} in\n{refused}");
    }
    assert_eq!(pair.replica_rows(), before);
    pair.replica.psql(&format!("ALTER ROLE {name} BYPASSRLS"));
    let ran = pair.catchup(&[&url]);
    pair.replica.psql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
    ran.exits(0);
    pair.assert_equal("notes");
}

#[test]
fn rules_that_a_load_goes_past_are_refused() {
    for rule in [
        "ON INSERT TO notes DO INSTEAD NOTHING",
        "ON DELETE TO notes DO ALSO INSERT INTO gone VALUES (old.id)",
        "ON UPDATE TO notes DO ALSO NOTHING",
    ] {
        let pair = published();
        pair.replica.psql(&format!("CREATE TABLE gone (id int); CREATE RULE \"r u\" AS {rule}"));
        refuses(&pair, 9, &["rule \"r u\" of public.notes", "disable rule \"r u\""]);
        pair.replica.psql("ALTER TABLE notes DISABLE RULE \"r u\"");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("notes");
    }
}

#[test]
fn triggers_fire_for_every_row_that_is_loaded_or_merged() {
    let pair = published();
    pair.replica.psql(
        "ALTER TABLE notes ADD length int; CREATE TABLE log (what text, id int);
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.length := length(NEW.body); RETURN NEW; END $$;
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.log VALUES (TG_OP, coalesce(NEW.id, OLD.id)); RETURN NULL; END $$;
         CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION fill();
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION note();",
    );
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT what, count(*) FROM log GROUP BY 1"), "INSERT|10");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE length = 6"), "10");
    pair.source.psql(
        "UPDATE notes SET body = 'longer than before' WHERE id = 101; DELETE FROM notes WHERE id = 102;
         INSERT INTO notes VALUES (199, '2024-05-01 04:00+00', 'new')",
    );
    pair.export("2024-05-01");
    pair.replica.psql("TRUNCATE log");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("TABLE log ORDER BY 2"), "UPDATE|101\nDELETE|102\nINSERT|199");
    assert_eq!(pair.replica.psql("SELECT id, length FROM notes WHERE id IN (101, 199) ORDER BY 1"), "101|18\n199|3");
    assert_eq!(rows(&pair.replica, "(SELECT id, at, body FROM notes)"), rows(&pair.source, "notes"));
}

#[test]
fn a_trigger_that_swallows_rows_undoes_their_day() {
    let pair = published();
    pair.replica.psql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER no BEFORE INSERT ON notes FOR EACH ROW WHEN (new.id = 102) EXECUTE FUNCTION no()",
    );
    refuses(&pair, 4, &["2024-05-01 public.notes: the replica took 4 rows, the feed has 5", "triggers"]);
}

#[test]
fn constraints_that_are_stricter_on_the_replica_are_drift() {
    for (change, words) in [
        ("ALTER TABLE notes ALTER body SET NOT NULL", "null value in column \"body\""),
        ("ALTER TABLE notes ADD CONSTRAINT short CHECK (length(body) < 10)", "short"),
        ("CREATE UNIQUE INDEX one ON notes (body)", "one"),
        ("ALTER TABLE notes ADD CONSTRAINT apart EXCLUDE (body WITH =)", "apart"),
        (
            "CREATE TABLE known (body text PRIMARY KEY); ALTER TABLE notes ADD FOREIGN KEY (body) REFERENCES known",
            "notes_body_fkey",
        ),
    ] {
        let pair = Pair::of_notes(1);
        pair.source.psql(
            "UPDATE notes SET body = NULL WHERE id = 101; UPDATE notes SET body = 'as long as this' WHERE id > 103",
        );
        pair.export("2024-05-01");
        pair.replica.psql(change);
        refuses(&pair, 9, &[words, "next:"]);
        assert_eq!(pair.ledger("*"), "", "{change}");
    }
}

#[test]
fn values_that_a_type_of_the_replica_does_not_know_are_drift() {
    let table = |labels: &str| {
        format!(
            "CREATE TYPE mood AS ENUM ({labels}); CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, m mood)"
        )
    };
    let pair = Pair::with_empty_replica(&table("'ok', 'new'"), "[[table]]\nname = \"t\"\ntime-column = \"at\"\n");
    pair.replica.psql(&table("'ok'"));
    pair.source.psql("INSERT INTO t VALUES (1, '2024-05-01 01:00+00', 'ok'), (2, '2024-05-01 01:00+00', 'new')");
    pair.export("2024-05-01");
    refuses(&pair, 9, &["lacks the label \"new\"", "alter type \"public\".\"mood\" add value 'new' after 'ok'"]);
    pair.replica.psql("ALTER TYPE mood ADD VALUE 'new'");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
}

#[test]
fn views_and_rows_behind_policies_of_the_source_are_never_filtered() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    let name = format!("reader_{}", pair.source.name);
    pair.source.psql(&format!(
        "INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 'a'), (2, '2024-05-01 01:00+00', 'b');
         CREATE ROLE {name} LOGIN; ALTER TABLE notes OWNER TO {name}; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY one ON notes USING (id = 1)"
    ));
    let url = pair.source.url.replace("user=postgres", &format!("user={name}"));
    pair.scene.edit_configuration(&pair.source.url, &url);
    // An owner sees all of it, unless it says otherwise.
    pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(pair.manifest("2024-05-01")["slices"][0]["rows"], 2);
    pair.source.psql("ALTER TABLE notes FORCE ROW LEVEL SECURITY");
    let refused = pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(6);
    assert!(refused.stderr.contains("row-level security of public.notes"), "{refused}");
    pair.source.psql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
}

#[test]
fn a_table_behind_a_view_whose_policies_apply_is_refused_with_what_to_do() {
    let pair = Pair::new(NOTES, "[[table]]\nname = \"seen\"\ntime-column = \"at\"\nrelation = \"view\"\n");
    let name = format!("viewer_{}", pair.source.name);
    pair.source.psql(&format!(
        "CREATE ROLE {name} LOGIN; ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON notes USING (id = 1);
         GRANT SELECT ON notes TO {name}; CREATE VIEW seen AS TABLE notes; ALTER VIEW seen OWNER TO {name}"
    ));
    let refused = pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(6);
    for words in ["row-level security policy for table \"notes\"", "bypassrls"] {
        assert!(refused.stderr.contains(words), "{words} in\n{refused}");
    }
    pair.source.psql(&format!("ALTER ROLE {name} BYPASSRLS"));
    pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    pair.source.psql(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"));
}

#[test]
fn tables_that_inherit_from_one_of_the_replica_are_refused() {
    let pair = published();
    pair.replica
        .psql("CREATE TABLE heir () INHERITS (notes); INSERT INTO heir VALUES (1, '2024-05-01 01:00+00', 'own')");
    refuses(&pair, 9, &["tables inherit from it on the replica (public.heir)", "no inherit"]);
    pair.replica.psql("ALTER TABLE heir NO INHERIT notes");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}
