//! How days are waited for, looked at again, and what is expected of them.

use super::*;

#[test]
fn words_and_numbers_that_say_nothing_about_the_look_at_days() {
    let long = format!("ignore-applications = [{:?}]", "a".repeat(64));
    for (setting, words) in [
        ("unsettled = \"later\"", "must be \"provisional\" or \"wait\" or \"refuse\", not \"later\""),
        ("detect = \"xmin\"", "must be \"rows\" or \"digest\" or \"count\" or \"off\""),
        ("expect = true", "must be \"lenient\" or \"strict\", not true or false"),
        ("ignore-applications = \"pg_dump\"", "must be a list"),
        ("ignore-applications = [\"\"]", "1 to 63 printable ASCII characters"),
        ("ignore-applications = [\"ü\"]", "1 to 63 printable ASCII characters"),
        ("ignore-applications = [3]", "must be an application_name in quotes"),
        (&*long, "1 to 63 printable ASCII characters"),
    ] {
        let key = format!("export.{}", setting.split(' ').next().expect("a key"));
        refused(&with_setting("export", setting), 3, &key, words);
    }
    for (setting, words) in [
        ("detect = \"always\"", "or \"off\", not \"always\""),
        ("min-rows = 0", "must be a whole number from 1 to"),
        ("min-fraction = 0", "above 0 and up to 1, such as 0.3, not 0"),
        ("min-fraction = 1.5", "above 0 and up to 1, such as 0.3, not 1.5"),
        ("min-fraction = nan", "above 0 and up to 1"),
        ("min-fraction = \"30%\"", "above 0 and up to 1, such as 0.3, not a text"),
    ] {
        let key = format!("table.{}", setting.split(' ').next().expect("a key"));
        refused(&with_table(setting), 4, &key, words);
    }
    let whole = parsed(&with_table("min-fraction = 1")).tables[0].expectation;
    assert_eq!(whole, Expectation { min_rows: None, min_fraction: Some(1.0) });
}
