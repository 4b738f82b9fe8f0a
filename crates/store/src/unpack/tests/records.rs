//! Headers that disagree, lie about lengths, or end too early; files with holes.

use super::*;

#[test]
fn pax_size_counts() {
    // A reader that believes the header sees a hidden entry in the data.
    let hidden = Tar::new().file("hidden", "x").open();
    let data = [&[0; 512][..], &hidden].concat();
    let len = data.len().to_string();
    let layer = Layer::new();
    let tar = Tar::new()
        .pax(&[("size", len.as_bytes())])
        .add(&Item {
            size: Some(512),
            data: &data,
            ..Item::new(b'0', "file")
        })
        .file("after", "x")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(
        fs::metadata(layer.path("file")).unwrap().len(),
        data.len() as u64
    );
    assert!(!layer.path("hidden").exists() && layer.path("after").exists());
}

#[test]
fn extended_headers_describe_the_next_entry_over_long_names() {
    let layer = Layer::new();
    let long = format!("{}/end", "n".repeat(200));
    let tar = Tar::new()
        .pax(&[("mtime", b"-1.25"), ("path", b"not/this")])
        .long_name(format!("{long}\0").as_bytes())
        .file("short", "x")
        .file("plain", "y")
        .end();
    layer.unpack(&tar).unwrap();
    let meta = fs::metadata(layer.path(&long)).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 750_000_000));
    assert_eq!(layer.read("plain"), "y");
    assert!(!layer.path("short").exists() && !layer.path("not").exists());
}

#[test]
fn global_headers_are_ignored() {
    let layer = Layer::new();
    let data = crate::unpack::testing::record("path", b"everything");
    let tar = Tar::new()
        .add(&Item {
            data: &data,
            ..Item::new(b'g', "global")
        })
        .file("a", "x")
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(layer.read("a"), "x");
}

#[test]
fn times_before_1970() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            mtime: -86_400,
            ..Item::new(b'0', "old")
        })
        .end();
    layer.unpack(&tar).unwrap();
    assert_eq!(fs::metadata(layer.path("old")).unwrap().mtime(), -86_400);
}

#[test]
fn names_are_any_bytes() {
    let layer = Layer::new();
    let tar = Tar::new()
        .add(&Item {
            name: b"caf\xe9\n\x1b[31m",
            data: b"x",
            ..Item::new(b'0', "")
        })
        .pax(&[("path", b"d\xff/\xfe")])
        .file("p", "y")
        .end();
    layer.unpack(&tar).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9\n\x1b[31m");
    assert_eq!(fs::read(layer.path(name)).unwrap(), b"x");
    let name = std::ffi::OsStr::from_bytes(b"d\xff/\xfe");
    assert_eq!(fs::read(layer.path(name)).unwrap(), b"y");
    // But errors are for terminals.
    let bad = Tar::new()
        .add(&Item {
            name: b"../\x1b[31m",
            ..Item::new(b'0', "")
        })
        .end();
    assert!(refusal(&bad).contains("\\u{1b}"));
}

#[test]
fn names_as_long_as_they_get() {
    let layer = Layer::new();
    let (most, more) = ("n".repeat(255), "n".repeat(256));
    layer
        .unpack(&Tar::new().long_name(most.as_bytes()).file("x", "x").end())
        .unwrap();
    assert_eq!(layer.read(&most), "x");
    let tar = Tar::new().long_name(more.as_bytes()).file("x", "x").end();
    assert!(refusal(&tar).contains("too long"));
}

#[test]
fn wrong_lengths_of_names() {
    let tar = Tar::new()
        .add(&Item {
            size: Some(1 << 40),
            ..Item::new(b'L', "L")
        })
        .end();
    assert!(refusal(&tar).contains("at most"));
    let tar = Tar::new()
        .add(&Item {
            size: Some(1 << 30),
            ..Item::new(b'x', "x")
        })
        .end();
    assert!(refusal(&tar).contains("at most"));
    assert!(refusal(&Tar::new().long_name(b"a").end()).contains("too early"));
    assert!(refusal(&Tar::new().long_name(b"../a\0b").file("x", "").end()).contains("leads out"));
    assert!(refusal(&Tar::new().pax(&[("path", b"a\0b")]).file("x", "").end()).contains("path"));
    assert!(refusal(&Tar::new().pax(&[("path", b"../a")]).file("x", "").end()).contains("out"));
}

#[test]
fn archives_that_are_cut_off() {
    let whole = Tar::new()
        .file("a", &"x".repeat(2000))
        .file("b", "y")
        .open();
    for len in [100, 512, 600, 2000, 2600, 3100] {
        let message = refusal(&whole[..len]);
        assert!(message.contains("too early"), "{len}: {message}");
    }
    // Without the two blocks at the end it is whole, as for everybody.
    Layer::new().unpack(&whole).unwrap();
    Layer::new().unpack(b"").unwrap();
}

#[test]
fn data_after_the_end() {
    let layer = Layer::new();
    let tar = [
        Tar::new().file("a", "x").end(),
        Tar::new().file("b", "y").end(),
    ]
    .concat();
    let unpacked = layer.unpack(&tar).unwrap();
    assert_eq!(unpacked.diff_id, Digest::sha256(&tar));
    assert!(!layer.path("b").exists());
    let lone = [&[0; 512][..], &Tar::new().file("b", "y").end()].concat();
    assert!(refusal(&lone).contains("after its end"));
}

#[test]
fn data_of_entries_that_have_none() {
    // Go's reader, which all others follow, gives these none, whatever their size says.
    let layer = Layer::new();
    let mut tar = Tar::new();
    for (kind, name) in [(b'5', "dir"), (b'2', "sym"), (b'6', "fifo")] {
        tar = tar.add(&Item {
            size: Some(512),
            link: b"x",
            ..Item::new(kind, name)
        });
    }
    layer.unpack(&tar.file("after", "x").end()).unwrap();
    assert_eq!(layer.read("after"), "x");
}

#[test]
fn sparse_files_in_all_forms() {
    let hole = |layer: &Layer| {
        let text = fs::read(layer.path("s")).unwrap();
        assert_eq!(text.len(), 1_000_000);
        assert_eq!(
            (&text[..4], &text[500_000..500_003]),
            (&b"head"[..], &b"end"[..])
        );
        assert_eq!(text.iter().filter(|&&byte| byte != 0).count(), 7);
        assert!(fs::metadata(layer.path("s")).unwrap().blocks() < 100);
        assert_eq!(layer.read("after"), "x");
    };
    let (zero, one) = (b"GNU.sparse.major", b"GNU.sparse.minor");
    let key = |bytes: &'static [u8]| std::str::from_utf8(bytes).unwrap();
    let forms = [
        Tar::new()
            .pax(&[
                ("GNU.sparse.size", b"1000000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"4"),
                ("GNU.sparse.offset", b"500000"),
                ("GNU.sparse.numbytes", b"3"),
            ])
            .file("s", "headend"),
        Tar::new()
            .pax(&[
                ("GNU.sparse.size", b"1000000"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.map", b"0,4,500000,3"),
            ])
            .file("GNUSparseFile.0/s", "headend"),
        Tar::new()
            .pax(&[
                (key(zero), b"1"),
                (key(one), b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"1000000"),
            ])
            .file(
                "GNUSparseFile.0/s",
                &format!("{:\0<512}headend", "2\n0\n4\n500000\n3\n"),
            ),
        old_sparse(
            &[(0, 4), (500_000, 3), (1_000_000, 0)],
            1_000_000,
            b"headend",
        ),
    ];
    for tar in forms {
        let layer = Layer::new();
        layer.unpack(&tar.file("after", "x").end()).unwrap();
        hole(&layer);
    }
}

/// GNU's old form; up to four regions in the header, the rest in one block after it.
fn old_sparse(map: &[(u64, u64)], size: u64, data: &[u8]) -> Tar {
    let slot = |&(offset, len): &(u64, u64)| format!("{offset:011o}\0{len:011o}\0").into_bytes();
    let mut fields: Vec<u8> = map.iter().take(4).flat_map(slot).collect();
    fields.resize(96, 0);
    fields.push(u8::from(map.len() > 4));
    fields.extend(format!("{size:011o}\0").bytes());
    let tar = Tar::new().add(&Item {
        size: Some(data.len() as u64),
        patch: Some((386, &fields)),
        ..Item::new(b'S', "s")
    });
    let more: Vec<u8> = map.iter().skip(4).flat_map(slot).collect();
    tar.raw(&more).raw(data)
}

#[test]
fn sparse_maps_with_many_regions() {
    let map: Vec<(u64, u64)> = (0..20).map(|n| (n * 4096, 1)).collect();
    let layer = Layer::new();
    layer
        .unpack(
            &old_sparse(&map, 100_000, &[b'x'; 20])
                .file("after", "x")
                .end(),
        )
        .unwrap();
    let text = fs::read(layer.path("s")).unwrap();
    assert_eq!(text.iter().filter(|&&byte| byte == b'x').count(), 20);
    assert_eq!((text.len(), text[19 * 4096]), (100_000, b'x'));
}

#[test]
fn sparse_maps_that_are_wrong() {
    for (map, size) in [
        (&[(0, 7)][..], 3),
        (&[(0, 4), (2, 3)], 100),
        (&[(0, 6)], 100),
        (&[(0, 8)], 100),
        (&[(1 << 32, 7)], 100),
    ] {
        assert!(
            refusal(&old_sparse(map, size, b"headend").end()).contains("map"),
            "{map:?}"
        );
    }
    for map in [
        "9\n0\n4\n",
        "x\n",
        "-1\n",
        "1\n99999999999999999999999\n1\n",
        "",
    ] {
        let tar = Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"100"),
            ])
            .file("s", &format!("{map:\0<512}"))
            .end();
        assert!(refusal(&tar).contains("map"), "{map:?}");
    }
}

#[test]
fn huge_sizes_cost_nothing() {
    let tar = Tar::new()
        .pax(&[("size", b"9223372036854775807")])
        .file("a", "x")
        .end();
    assert!(refusal(&tar).contains("too early"));
    let negative = Tar::new()
        .add(&Item {
            patch: Some((124, &[0xff; 12])),
            ..Item::new(b'0', "a")
        })
        .end();
    assert!(refusal(&negative).contains("negative"));
}
