//! Values that are easily lost, for every type that a table can have a column of.

/// Values of a type, by its name in `pg_type`, as its input function of PostgreSQL `version` (13, 14, …) reads them;
/// `None` when the list does not know the type.
pub(super) fn values(type_name: &str, version: u32) -> Option<Vec<String>> {
    let mut values = of_text(type_name)
        .or_else(|| of_numbers(type_name))
        .or_else(|| of_time(type_name, version))
        .or_else(|| of_documents(type_name))
        .or_else(|| of_shapes(type_name))
        .or_else(|| of_systems(type_name))
        .or_else(|| of_ranges(type_name))
        .or_else(|| of_extensions(type_name))?;
    if type_name == "bytea" {
        let every: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
        values.push(format!("\\x{every}"));
        values.push(format!("\\x{}", every.repeat(40)));
    }
    if type_name == "numeric" {
        values.push("9".repeat(1_000));
        values.push(format!("-0.{}1", "0".repeat(999)));
        values.push(format!("{}.{}", "1234567890".repeat(50), "0".repeat(500)));
    }
    if version >= 14 && type_name == "numeric" {
        values.extend(list(&["Infinity", "-Infinity"]));
    }
    Some(values)
}

/// Types that no row of a user's table can hold a value of, and why.
pub(super) fn exception(type_name: &str) -> Option<&'static str> {
    match type_name {
        "gtsvector" | "ghstore" | "ltree_gist" | "intbig_gkey" => Some("a key of an index: its input takes nothing"),
        "pg_node_tree" | "pg_ndistinct" | "pg_dependencies" | "pg_mcv_list" => {
            Some("what the server itself writes into its catalogs: its input takes nothing")
        }
        "pg_brin_bloom_summary" | "pg_brin_minmax_multi_summary" => {
            Some("a summary in an index: its input takes nothing")
        }
        _ => None,
    }
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Texts that mean something to one format or another.
pub(super) const TEXTS: [&str; 45] = [
    "",
    " ",
    "  x  ",
    "\\.",
    "\\N",
    "\\",
    "\\\\",
    "\\t",
    "\\n",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "a\tb",
    "a\nb",
    "a\r\nb\r",
    "\u{8}\u{c}\u{b}",
    "\u{1}\u{7f}",
    "\\.\n\\.",
    "x\n\\.\ny",
    "\n\\.\n",
    "\"",
    "\"\"",
    "\"\n\"",
    "'",
    "''",
    "a'b\"c",
    ",",
    "a,b",
    ",,",
    "{}",
    "{NULL}",
    "NULL",
    "null",
    "()",
    "(,)",
    "[1,2)",
    "\u{feff}bom",
    "\u{2028}\u{2029}\u{85}\u{a0}",
    "ä€😀\u{10ffff}",
    "e\u{301}",
    "\\x41",
    "$1",
    "PGCOPY\n\u{ff}\r\n",
];

fn of_text(type_name: &str) -> Option<Vec<String>> {
    Some(match type_name {
        "text" | "varchar" | "citext" => {
            let mut texts = list(&TEXTS);
            texts.extend(["\\\n\t\"',".repeat(3_000), "ß".repeat(9_000)]);
            texts
        }
        "bpchar" => list(&["", " ", "  x", "x  ", "\\.", "\\N", "a\nb", "a\tb  ", "\"", "ä€", "\\"]),
        "name" => list(&[
            "",
            "\\.",
            "\\N",
            "a b",
            "\"q\"",
            "a\nb",
            "a,b",
            "ä",
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz12345678901",
        ]),
        "char" => list(&["", "a", "\\", "\t", "\n", "\r", "\"", ",", "'", " ", "{"]),
        "refcursor" => list(&["", "\\.", "<unnamed portal 1>", "a\nb"]),
        "bytea" => list(&[
            "",
            "\\x00",
            "\\x0a",
            "\\x5c2e",
            "\\x5c4e",
            "\\x22",
            "\\xffff",
            "\\x0d0a",
            "\\x5047434f50590aff0d0a00",
        ]),
        "bit" | "varbit" => list(&[
            "",
            "0",
            "1",
            "10101",
            "00000000",
            "111111111",
            "1010101010101010101010101010101010101010101010101010101010101010101",
        ]),
        "tsvector" => list(&[
            "",
            "a",
            "'a b':1A,2B,3C,4D",
            "'\\\\.' '\\\\N'",
            "'it''s' '\"q\"'",
            "a:16383",
            "ä:1 '\n':2",
            "a:1,1,2",
        ]),
        "tsquery" => {
            list(&["", "a", "a & b | !c", "a <-> b", "a <16384> b", "'it''s':*", "'\\\\.':AB", "!(a | b) & 'x y'", "ä"])
        }
        "uuid" => list(&[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        ]),
        _ => return None,
    })
}

fn of_numbers(type_name: &str) -> Option<Vec<String>> {
    Some(match type_name {
        "bool" => list(&["t", "f"]),
        "int2" => list(&["0", "-1", "32767", "-32768"]),
        "int4" => list(&["0", "-1", "2147483647", "-2147483648"]),
        "int8" => list(&["0", "-1", "9223372036854775807", "-9223372036854775808"]),
        "float4" => list(&[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.1754944e-38",
            "1e-45",
            "3.4028235e38",
            "0.1",
            "16777216",
            "-1.5e-10",
        ]),
        "float8" => list(&[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "2.2250738585072014e-308",
            "5e-324",
            "1.7976931348623157e308",
            "0.1",
            "0.30000000000000004",
            "9007199254740993",
            "-1.5e-10",
            "1e22",
            "123456789.123456789",
        ]),
        "numeric" => list(&[
            "0",
            "-0.0",
            "0.000",
            "NaN",
            "1",
            "1.0",
            "1.10",
            "-1.000000",
            "1e100",
            "1e-100",
            "12345678901234567890.12345678901234567890",
            "0.1",
            "10000",
            "9999.9999",
            "1e131071",
            "1e-16383",
        ]),
        "money" => {
            list(&["0", "-0.01", "12.34", "-12.34", "1234567.89", "92233720368547758.07", "-92233720368547758.08"])
        }
        _ => return None,
    })
}

fn of_time(type_name: &str, version: u32) -> Option<Vec<String>> {
    let mut values = match type_name {
        "date" => list(&[
            "infinity",
            "-infinity",
            "4713-11-24 BC",
            "0001-01-01",
            "0001-12-31 BC",
            "5874897-12-31",
            "2024-02-29",
            "1900-02-28",
            "2000-01-01",
            "12345-06-07",
        ]),
        "time" => list(&["00:00:00", "24:00:00", "23:59:59.999999", "23:59:60", "00:00:00.000001", "12:00"]),
        "timetz" => list(&[
            "00:00:00+00",
            "24:00:00-15:59",
            "23:59:59.999999+15:59:59",
            "23:59:60+00",
            "12:00:00+05:30",
            "12:00:00-03:30:15",
        ]),
        "timestamp" => list(&[
            "infinity",
            "-infinity",
            "4713-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "0001-01-01 00:00:00",
            "0001-12-31 23:59:59.999999 BC",
            "2024-02-29 24:00:00",
            "2016-12-31 23:59:60",
            "2000-01-01 00:00:00.000001",
            "1999-12-31 23:59:59.999999",
            "12345-06-07 08:09:10.1",
            "1582-10-10 00:00:00",
        ]),
        "timestamptz" => list(&[
            "infinity",
            "-infinity",
            "4713-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "0001-12-31 23:59:59.999999+00 BC",
            "2024-02-29 24:00:00+00",
            "2016-12-31 23:59:60+00",
            "2000-01-01 00:00:00.000001+00",
            "2024-03-31 02:30:00 Europe/Berlin",
            "2024-10-27 02:30:00+02",
            "1883-11-18 12:03:57 America/New_York",
            "1800-01-01 00:00:00 Europe/Amsterdam",
            "12345-06-07 08:09:10.1-15:59",
        ]),
        "interval" => list(&[
            "0",
            "1 year -2 months 3 days -04:05:06.000007",
            "-1 year 2 months -3 days 04:05:06.7",
            "178000000 years",
            "-178000000 years",
            "2147483647 days",
            "-2147483648 days",
            "00:00:00.000001",
            "-00:00:00.000001",
            "1 day -00:00:01",
            "-1 day +00:00:01",
            "1 mon -1 day",
            "-13 mons 25 hours",
            "24:00:00",
            "-0.5 sec",
        ]),
        _ => return None,
    };
    if type_name == "interval" && version >= 15 {
        values.extend(list(&["2562047788 hours", "-2562047788:00:54.775807"]));
    }
    if type_name == "interval" && version >= 17 {
        values.extend(list(&["infinity", "-infinity"]));
    }
    Some(values)
}

fn of_documents(type_name: &str) -> Option<Vec<String>> {
    let json = [
        "{}",
        "[]",
        "null",
        "\"\"",
        "\"\\\\u0000\"",
        "\"\\\\.\"",
        "\"\\\\N\"",
        "\"\\n\\t\\r\\b\\f\"",
        "{\"a\": 1, \"a\": 2}",
        "[1, [2, [3, []]], {}]",
        "1e400",
        "-0",
        "0.10",
        "\"\\ud83d\\ude00\"",
        "\"ä\"",
        "true",
        "{\"\": null}",
        "\"\\\"\"",
        "{\"q\\\"\": \"'\"}",
        "123456789012345678901234567890.123456789",
    ];
    Some(match type_name {
        "json" => {
            let mut values = list(&json);
            values.extend(list(&["\"\\u0000\"", " { \"a\" :\n 1 ,\t\"a\" : 2 } ", "\n[\n]\n", "1E+2"]));
            values
        }
        "jsonb" => list(&json),
        "jsonpath" => list(&[
            "$",
            "$.a[*] ? (@.b > 1 && @.c == \"x\")",
            "strict $.\"a b\"[last]",
            "$.\"\\\\.\"",
            "$.a ? (@ like_regex \"^\\\\\\\\d+$\" flag \"i\")",
            "-$.a + 1.50",
            "$.\"\\n\"",
            "$.**{2 to last}.keyvalue()",
        ]),
        "xml" => list(&[
            "",
            "<a/>",
            "text only",
            "<a b=\"c&quot;'\">\n\t&amp;&lt;]]&gt;</a>",
            "<?xml version=\"1.0\"?><a/>",
            "<?xml version=\"1.1\" standalone=\"yes\"?><a/>",
            "<!-- \\. --><a/><b/>",
            "<![CDATA[\\.\n\\N]]>",
            "<ä>€😀</ä>",
            "  <a/>  ",
            "<!DOCTYPE a><a/>",
            "<a>\r\n</a>",
        ]),
        "hstore" => list(&[
            "",
            "a=>1",
            "a=>NULL",
            "\"a\"=>\"NULL\"",
            "\"\"=>\"\"",
            "\"a b\"=>\"\\\\.\", \"=>\"=>\",\"",
            "\"\\\"\"=>\"'\"",
            "\"n\"=>\"a\nb\tc\"",
            "ä=>€",
        ]),
        _ => return None,
    })
}

fn of_shapes(type_name: &str) -> Option<Vec<String>> {
    Some(match type_name {
        "point" => list(&["(0,0)", "(-0,NaN)", "(Infinity,-Infinity)", "(1e-300,0.1)", "(0.30000000000000004,1e22)"]),
        "lseg" => list(&["[(0,0),(0,0)]", "[(1,2),(-0,0.1)]", "[(1e300,1e-300),(Infinity,NaN)]"]),
        "box" => list(&["(0,0),(0,0)", "(1,2),(3,0.1)", "(-0,1e300),(1e-300,-1)"]),
        "path" => list(&["((0,0))", "[(0,0),(1,1),(2,0.1)]", "((0,0),(1,1),(2,0))", "[(1e300,-0)]"]),
        "polygon" => list(&["((0,0))", "((0,0),(1,1),(2,0.1))", "((1e300,-1e-300),(0,0))"]),
        "line" => list(&["{1,2,3}", "{-0,1,0.1}", "{1e300,-1,1e-300}"]),
        "circle" => list(&["<(0,0),0>", "<(1,-0),0.1>", "<(1e300,1e-300),Infinity>"]),
        _ => return None,
    })
}

fn of_systems(type_name: &str) -> Option<Vec<String>> {
    Some(match type_name {
        "inet" => list(&[
            "0.0.0.0",
            "255.255.255.255/0",
            "192.168.100.128/25",
            "::",
            "::1/0",
            "2001:db8::ff00:42:8329/64",
            "::ffff:1.2.3.4/128",
            "fe80::/10",
        ]),
        "cidr" => list(&[
            "0.0.0.0/0",
            "10.0.0.0/8",
            "192.168.100.128/25",
            "255.255.255.255/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ]),
        "macaddr" => list(&["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08-00-2b-01-02-03"]),
        "macaddr8" => list(&["00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "08-00-2b-01-02-03-04-05"]),
        "oid" | "xid" | "cid" => list(&["0", "1", "4294967295"]),
        "xid8" => list(&["0", "1", "18446744073709551615"]),
        "tid" => list(&["(0,0)", "(0,1)", "(4294967295,65535)"]),
        "pg_lsn" => list(&["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"]),
        "pg_snapshot" | "txid_snapshot" => list(&["1:1:", "10:20:10,14,15", "12345678901:12345678910:12345678903"]),
        "int2vector" => list(&["", "1", "-32768 0 32767"]),
        "oidvector" => list(&["", "0", "1 2 4294967295"]),
        "aclitem" => list(&["postgres=r/postgres", "=arwdDxt/postgres", "postgres=r*w*/postgres"]),
        "regproc" => list(&["-", "pg_catalog.now", "public.\"odd name\"", "4294967295"]),
        "regprocedure" => list(&["-", "pg_catalog.int4in(cstring)", "public.\"odd name\"()", "4294967295"]),
        "regoper" => list(&["0", "pg_catalog.||/", "4294967295"]),
        "regoperator" => list(&["0", "pg_catalog.+(integer,integer)", "pg_catalog.-(NONE,integer)", "4294967295"]),
        "regclass" => list(&["-", "pg_catalog.pg_class", "public.\"Odd, \"\"table\"\"\"", "4294967295"]),
        "regtype" => list(&["-", "integer", "timestamp with time zone", "integer[]", "public.pair", "4294967295"]),
        "regrole" => list(&["-", "postgres", "4294967295"]),
        "regnamespace" => list(&["-", "pg_catalog", "\"we ird\"", "4294967295"]),
        "regcollation" => list(&["-", "pg_catalog.\"C\"", "4294967295"]),
        "regconfig" => list(&["pg_catalog.english", "pg_catalog.simple", "4294967295"]),
        "regdictionary" => list(&["pg_catalog.simple", "pg_catalog.english_stem", "4294967295"]),
        _ => return None,
    })
}

fn of_ranges(type_name: &str) -> Option<Vec<String>> {
    let ranges = match type_name.trim_end_matches("range").trim_end_matches("multi") {
        "int4" => ["empty", "(,)", "[1,10)", "(,5]", "[-2147483648,2147483647)", "[5,5]"],
        "int8" => ["empty", "(,)", "[1,10)", "(,5]", "[-9223372036854775808,9223372036854775807)", "[5,5]"],
        "num" => ["empty", "(,)", "[1.0,1.00]", "(,NaN)", "[-1.10,1e100)", "(0.1,]"],
        "date" => [
            "empty",
            "(,)",
            "[infinity,infinity]",
            "[-infinity,infinity)",
            "[4713-11-24 BC,2024-01-01)",
            "(2024-01-01,]",
        ],
        "ts" => [
            "empty",
            "(,)",
            "[-infinity,infinity]",
            "[\"4713-11-24 00:00:00 BC\",\"2024-01-01 24:00:00\")",
            "(,infinity)",
            "[2024-01-01,2024-01-01]",
        ],
        "tstz" => [
            "empty",
            "(,)",
            "[-infinity,infinity]",
            "[\"4713-11-24 00:00:00+00 BC\",\"2024-01-01 00:00:00.000001+00\")",
            "(,infinity)",
            "[2024-01-01 Z,2024-01-01 Z]",
        ],
        _ => return None,
    };
    if !type_name.ends_with("multirange") {
        return Some(list(&ranges));
    }
    let mut values = list(&["{}"]);
    values.extend(ranges.iter().filter(|range| **range != "empty").map(|range| format!("{{{range}}}")));
    values.push(format!("{{{}, {}}}", ranges[5], ranges[3]));
    Some(values)
}

fn of_extensions(type_name: &str) -> Option<Vec<String>> {
    Some(match type_name {
        "ltree" => list(&["", "a", "Top.Science.Astronomy", "a_1.B_2.c3"]),
        "lquery" => list(&["*", "Top.*{0,2}.sport*@.!football|tennis{1,}.Russ*|Spain", "a.*{3}.b"]),
        "ltxtquery" => list(&["a", "Europe & Russia*@ & !Transportation", "a | b"]),
        "cube" => list(&["(0)", "(1,2,3)", "(1,2),(3,0.1)", "(-0,1e300)", "()"]),
        "earth" => list(&["(6378168,0,0)", "(0,-6378168,0)"]),
        "seg" => list(&["1", "1 .. 2", "<1.0", "~1.50", "5.00(+-)0.05", ".. 3", "1e3 .."]),
        "ean13" => list(&["978-0-393-04002-9", "0000000000000", "9780393040029!"]),
        "isbn13" | "isbn" => list(&["978-0-393-04002-9", "9780393040029!", "0-393-04002-X"]),
        "ismn13" | "ismn" => list(&["979-0-2306-7118-7", "9790230671187!"]),
        "issn13" | "issn" => list(&["977-1436-4522-06", "1436-4522"]),
        "upc" => list(&["220356483481", "000000000000"]),
        "query_int" => list(&["1", "1&2", "!(1|2)&3"]),
        "lo" => list(&["0", "4294967295"]),
        _ => return None,
    })
}
