//! Files as users bring them, good and bad.

use std::{fs, io::Write as _, path::Path};

use sapwood_data::{DataError, Limits, Schema, Source, load, load_columns, load_with, read_tensors, save_npy, save_npz};
use sapwood_models::{DataFault, Dataset, Targets, Tensor, TensorData};
use tempfile::TempDir;

fn example() -> Dataset {
    Dataset { x: Tensor::f32([3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().into(), y: Targets::Classes(vec![0, 1, 2]) }
}

fn source(path: &Path) -> Source {
    Source::Path(path.to_path_buf())
}

/// The features of [`example`].
fn x() -> Tensor {
    example().x.only().unwrap().clone()
}

/// Saves tensors as `data.npz` in a folder of its own.
fn npz(tensors: &[(&str, Tensor)]) -> (TempDir, Source) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.npz");
    save_npz(&path, tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    (dir, Source::Path(path))
}

fn csv(text: &str) -> (TempDir, Source) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    fs::write(&path, text).unwrap();
    (dir, Source::Path(path))
}

fn table_schema() -> Schema {
    let text = "[input]\nshape = [2]\n[targets]\nclasses = 3\n[csv]\ntarget = \"y\"\ngroup = [\"store\"]\n";
    Schema::from_toml(text).unwrap()
}

const TABLE: &str = "a,store,b,y\n0.5,north,1,0\n-2,south,3e1,2\n";

#[test]
fn a_folder_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new");
    for data in [example(), Dataset { y: Targets::Values(Tensor::f32([3, 2], vec![0.5; 6]).unwrap()), ..example() }] {
        save_npy(&folder, &data).unwrap();
        assert_eq!(load(&source(&folder), None).unwrap(), data);
    }
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["x.npy", "y.npy"]);
}

/// Every array with a row for each target is a feature; what is about the data, a column that is asked for, and text are none.
#[test]
fn several_arrays_are_features_by_name() {
    let floats = |values: &[f32]| Tensor::f32([values.len()], values.to_vec()).unwrap();
    let stored =
        [("x", x()), ("lengths", floats(&[2.0, 1.0, 2.0])), ("customer", floats(&[7.0, 7.0, 8.0])), ("means", floats(&[0.5, 0.5]))];
    let (_dir, source) = npz(&[&stored[..], &[("y", Tensor::i64([3], vec![0, 1, 2]).unwrap())]].concat());
    let (data, columns) = load_columns(&source, None, &["customer"]).unwrap();
    let names: Vec<&str> = data.x.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["lengths", "x"]);
    assert_eq!(columns.get("customer").unwrap(), ["7", "7", "8"]);

    let dir = tempfile::tempdir().unwrap();
    save_npy(dir.path(), &data).unwrap();
    assert_eq!(load(&Source::Path(dir.path().into()), None).unwrap(), data);
    // Together they are 36 bytes: each fits, and both do not.
    let limit = Limits { bytes: 30 };
    assert!(matches!(load_with(&Source::Path(dir.path().into()), None, &[], limit), Err(DataError::TooLarge { .. })));
}

#[test]
fn integer_images_become_floats_and_float_labels_become_classes() {
    let x = Tensor::new([2, 2], TensorData::U8(vec![0, 255, 7, 1])).unwrap();
    let y = Tensor::f32([2, 1], vec![1.0, 0.0]).unwrap();
    let (_dir, source) = npz(&[("x", x), ("y", y)]);
    let schema = Schema::from_toml("[input]\nshape = [2]\n[targets]\nclasses = 2").unwrap();
    let data = load(&source, Some(&schema)).unwrap();
    assert_eq!(data.x.only().unwrap().as_f32().unwrap(), [0.0, 255.0, 7.0, 1.0]);
    assert_eq!(data.y, Targets::Classes(vec![1, 0]));
    // Without a schema, floats are values.
    assert!(matches!(load(&source, None).unwrap().y, Targets::Values(v) if v.shape == [2, 1]));
}

#[test]
fn tensors_of_any_name_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inputs.npz");
    let tensors = [("a", Tensor::i64([2], vec![1, -1]).unwrap()), ("b", Tensor::new([1, 1], TensorData::Bool(vec![true])).unwrap())];
    save_npz(&path, tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    let back = read_tensors(&path, Limits::default()).unwrap();
    assert_eq!(back.into_iter().collect::<Vec<_>>(), tensors.map(|(name, tensor)| (name.to_owned(), tensor)));
}

#[test]
fn nan_and_infinity_are_named_by_file_row_and_column() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = Tensor::f32([2, 2], vec![0.0, 0.0, 0.0, bad]).unwrap();
        let (_dir, source) = npz(&[("x", x), ("y", Tensor::i64([2], vec![0, 1]).unwrap())]);
        let refused = load(&source, None).unwrap_err();
        assert!(matches!(refused, DataError::Fault { fault: DataFault::NotFinite { row: 1, column: 1, .. }, .. }), "{refused}");
        assert!(refused.to_string().contains("data.npz: row 1, column 1"), "{refused}");
    }
}

#[test]
fn labels_out_of_range_are_named_by_row() {
    let schema = Schema::from_toml("[input]\nshape = [2]\n[targets]\nclasses = 2").unwrap();
    for bad in [2, -1, i64::MAX] {
        let y = Tensor::i64([3], vec![0, 1, bad]).unwrap();
        let (_dir, source) = npz(&[("x", x()), ("y", y)]);
        let refused = load(&source, Some(&schema)).unwrap_err();
        assert!(matches!(refused, DataError::Fault { fault: DataFault::Label { row: 2, .. }, .. }), "{refused}");
    }
    // Without a schema a negative label may be one that the run ignores.
    let (_dir, source) = npz(&[("x", x()), ("y", Tensor::i64([3], vec![0, -1, 1]).unwrap())]);
    assert_eq!(load(&source, None).unwrap().y, Targets::Classes(vec![0, -1, 1]));
}

#[test]
fn fractional_labels_are_named_by_row() {
    let schema = Schema::from_toml("[input]\nshape = [2]\n[targets]\nclasses = 3").unwrap();
    for bad in [0.5, f32::NAN, f32::INFINITY] {
        let y = Tensor::f32([3], vec![0.0, bad, 1.0]).unwrap();
        let (_dir, source) = npz(&[("x", x()), ("y", y)]);
        let refused = load(&source, Some(&schema)).unwrap_err();
        assert!(matches!(&refused, DataError::Value { array, row: 1, .. } if array == "y"), "{refused}");
    }
}

#[test]
fn wrong_shapes_and_counts_are_refused() {
    let schema = Schema::from_toml("[input]\nshape = [3]\n[targets]\nclasses = 3").unwrap();
    let y = || Tensor::i64([3], vec![0, 1, 2]).unwrap();
    let (_dir, source) = npz(&[("x", x()), ("y", y())]);
    assert!(matches!(load(&source, Some(&schema)), Err(DataError::Fault { fault: DataFault::Shape { .. }, .. })));

    let (_dir, source) = npz(&[("x", x()), ("y", Tensor::i64([2], vec![0, 1]).unwrap())]);
    assert!(matches!(load(&source, None), Err(DataError::Fault { fault: DataFault::Rows { rows: 3, targets: 2 }, .. })));

    let (_dir, source) = npz(&[("x", Tensor::f32([0, 2], vec![]).unwrap()), ("y", Tensor::i64([0], vec![]).unwrap())]);
    assert!(matches!(load(&source, None), Err(DataError::Fault { fault: DataFault::Empty, .. })));

    let (_dir, source) = npz(&[("x", Tensor::f32([3], vec![0.0; 3]).unwrap()), ("y", y())]);
    assert!(matches!(load(&source, None), Err(DataError::Malformed { .. })));

    let (_dir, source) = npz(&[("x", x()), ("y", Tensor::i64([3, 2], vec![0; 6]).unwrap())]);
    assert!(matches!(load(&source, None), Err(DataError::Malformed { .. })));

    let (_dir, source) = npz(&[("x", x()), ("labels", y())]);
    assert!(matches!(load(&source, None), Err(DataError::MissingArray { array, .. }) if array == "y"));
}

#[test]
fn a_damaged_file_is_refused_wherever_it_was_cut() {
    let (dir, source) = npz(&[("x", x()), ("y", Tensor::i64([3], vec![0, 1, 2]).unwrap())]);
    let path = dir.path().join("data.npz");
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(matches!(load(&source, None), Err(DataError::Malformed { .. })), "{end}");
    }
    save_npy(dir.path(), &example()).unwrap();
    fs::write(dir.path().join("x.npy"), b"\x93NUMPY").unwrap();
    let refused = load(&Source::Path(dir.path().into()), None).unwrap_err();
    assert!(matches!(refused, DataError::Malformed { path, .. } if path.ends_with("x.npy")));
}

/// A file that is small on disk and large in memory is refused before it unpacks.
#[test]
fn an_archive_that_would_unpack_beyond_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.npz");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for name in ["x.npy", "y.npy"] {
        archive.start_file(name, options).unwrap();
        let rows = 1 << 20;
        let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 16), }}");
        header.push('\n');
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&vec![0; rows * 16]).unwrap();
    }
    archive.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 100_000);
    let limit = 1 << 20;
    let refused = load_with(&source(&path), None, &[], Limits { bytes: limit }).unwrap_err();
    assert!(matches!(refused, DataError::TooLarge { bytes, .. } if bytes == 16 << 20), "{refused}");
}

#[test]
fn a_table_is_read_by_its_schema() {
    let (_dir, source) = csv(TABLE);
    let (data, columns) = load_columns(&source, Some(&table_schema()), &[]).unwrap();
    assert_eq!(data.x, Tensor::f32([2, 2], vec![0.5, 1.0, -2.0, 30.0]).unwrap().into());
    assert_eq!(data.y, Targets::Classes(vec![0, 2]));
    assert_eq!(columns.get("store").unwrap(), ["north", "south"]);

    let text = "[input]\nshape = [1]\n[targets]\nvalues = 2\n[csv]\ntarget = [\"y\", \"a\"]\nfeatures = [\"b\"]\n";
    let data = load(&source, Some(&Schema::from_toml(text).unwrap())).unwrap();
    assert_eq!(data.x, Tensor::f32([2, 1], vec![1.0, 30.0]).unwrap().into());
    assert_eq!(data.y, Targets::Values(Tensor::f32([2, 2], vec![0.0, 0.5, 2.0, -2.0]).unwrap()));
}

/// Whose a row is: a column of a table, listed as `group` or not; one more array; the blocks of the digits.
#[test]
fn rows_are_grouped_by_a_column_that_is_asked_for() {
    let text = "a,store,b,y,customer\n1,n,1,0,x\n2,n,1,0,w\n3,s,1,0,x\n";
    let (_dir, source) = csv(text);
    let (data, columns) = load_columns(&source, Some(&table_schema()), &["customer"]).unwrap();
    assert_eq!(data.x.only().unwrap().shape, [3, 2]);
    assert_eq!(columns.groups("customer").unwrap(), [vec![0, 2], vec![1]]);
    assert_eq!(columns.groups("store").unwrap(), [vec![0, 1], vec![2]]);
    assert_eq!(columns.groups("nobody"), None);

    let arrays = |customers: Tensor| npz(&[("x", x()), ("y", Tensor::i64([3], vec![0, 1, 2]).unwrap()), ("customer", customers)]);
    let (_dir, source) = arrays(Tensor::i64([3], vec![70, -1, 70]).unwrap());
    let (_, columns) = load_columns(&source, None, &["customer"]).unwrap();
    assert_eq!(columns.groups("customer").unwrap(), [vec![0, 2], vec![1]]);
    // Nobody asked.
    assert_eq!(load_columns(&source, None, &[]).unwrap().1.names().count(), 0);

    let folder = tempfile::tempdir().unwrap();
    save_npy(folder.path(), &example()).unwrap();
    fs::copy(folder.path().join("y.npy"), folder.path().join("customer.npy")).unwrap();
    let (_, columns) = load_columns(&self::source(folder.path()), None, &["customer"]).unwrap();
    assert_eq!(columns.groups("customer").unwrap().len(), 3);

    let (_, columns) = load_columns(&"digits:12-14".parse().unwrap(), None, &["block"]).unwrap();
    assert_eq!(columns.groups("block").unwrap().len(), 3);
}

/// A row that could be anybody's would be nobody's: it is refused.
#[test]
fn columns_that_tell_no_rows_apart_are_refused() {
    let refused = |source: &Source, schema: Option<&Schema>, column: &str| load_columns(source, schema, &[column]).unwrap_err();
    for (text, column, reason) in [
        ("a,store,b,y\n1,n,1,0\n", "customer", "no column `customer`"),
        ("a,store,b,y\n1,n,1,0\n", "y", "no feature or target"),
        ("a,store,b,y,customer\n1,n,1,0,x\n1,n,1,0,\n", "customer", "line 3, column `customer`: it is empty"),
    ] {
        let (_dir, source) = csv(text);
        let refused = refused(&source, Some(&table_schema()), column).to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    for (customers, reason) in [
        (Tensor::i64([2], vec![0, 1]).unwrap(), "2 values for 3 examples"),
        (Tensor::i64([3, 2], vec![0; 6]).unwrap(), "shape [3, 2]"),
        (Tensor::f32([3], vec![0.0, 0.5, 1.0]).unwrap(), "row 1"),
        (Tensor::f32([3], vec![0.0, f32::NAN, 1.0]).unwrap(), "row 1"),
    ] {
        let (_dir, source) = npz(&[("x", x()), ("y", Tensor::i64([3], vec![0, 1, 2]).unwrap()), ("customer", customers)]);
        let refused = refused(&source, None, "customer").to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let folder = tempfile::tempdir().unwrap();
    save_npy(&folder.path().join("mine"), &example()).unwrap();
    save_npy(&folder.path().join("theirs"), &example()).unwrap();
    for name in ["../theirs/y", &folder.path().join("theirs/y").display().to_string()] {
        assert!(matches!(refused(&source(&folder.path().join("mine")), None, name), DataError::NoColumn { .. }), "{name}");
    }
    let digits = "digits:12-14".parse().unwrap();
    let refused = refused(&digits, None, "writer").to_string();
    assert!(refused.contains("no column `writer`; it has block"), "{refused}");
}

#[test]
fn bad_cells_are_named_by_line_and_column() {
    for (from, to, line, column) in [
        ("3e1", "NaN", 3, "b"),
        ("3e1", "inf", 3, "b"),
        ("3e1", "1e99", 3, "b"),
        ("3e1", "three", 3, "b"),
        ("0.5", "", 2, "a"),
        ("3e1,2", "3e1,3", 3, "y"),
        ("3e1,2", "3e1,-1", 3, "y"),
        ("3e1,2", "3e1,1.5", 3, "y"),
    ] {
        let (_dir, source) = csv(&TABLE.replace(from, to));
        let refused = load(&source, Some(&table_schema())).unwrap_err();
        let named = matches!(&refused, DataError::Cell { line: l, column: c, .. } if *l == line && c == column);
        assert!(named, "{to}: {refused}");
        assert!(refused.to_string().contains(&format!("data.csv: line {line}, column `{column}`")), "{refused}");
    }
}

#[test]
fn tables_that_do_not_fit_their_schema_are_refused() {
    for (text, reason) in [
        ("a,store,b,y\n1,north,1,0\n1,north,1\n", "line: 3"),
        ("a,store,b,label\n1,north,1,0\n", "no column `y`"),
        ("a,store,store,y\n1,n,n,0\n", "two columns `store`"),
        ("a,store,b,c,y\n1,n,1,1,0\n", "3 feature columns"),
    ] {
        let (_dir, source) = csv(text);
        let refused = load(&source, Some(&table_schema())).unwrap_err();
        assert!(matches!(refused, DataError::Malformed { .. } | DataError::NoColumn { .. }), "{refused}");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    let (_dir, source) = csv("a,store,b,y\n");
    assert!(matches!(load(&source, Some(&table_schema())), Err(DataError::Fault { fault: DataFault::Empty, .. })));
    let (_dir, source) = csv(TABLE);
    assert!(matches!(load(&source, None), Err(DataError::SchemaNeeded { .. })));
    assert!(matches!(load_with(&source, Some(&table_schema()), &[], Limits { bytes: 10 }), Err(DataError::TooLarge { .. })));
}

const FEATURES: &str = r#"
[[inputs]]
name = "who"
columns = [
    { name = "age", type = "integer", range = [0, 120] },
    { name = "shop", type = "category", values = ["north", "south"], encode = "one-hot", null = { fill = "north" } },
    { name = "tier", type = "category", values = ["low", "high"] },
]

[[inputs]]
name = "money"
columns = [{ name = "spent", range = [0, 100], unit = "EUR", null = { mean = 12.5 } }]

[targets]
classes = 2

[csv]
target = "y"
ignore = ["note"]
nulls = ["NA"]
"#;
const RECORDS: &str = "note,spent,tier,shop,age,y\nhi,1.5,high,south,30,1\n,NA,low,,0,0\n";

/// Columns of several types for several inputs, in another order than the file's.
#[test]
fn a_table_with_categories_and_nulls_is_read_as_its_schema_says() {
    let schema = Schema::from_toml(FEATURES).unwrap();
    let (_dir, source) = csv(RECORDS);
    let data = load(&source, Some(&schema)).unwrap();
    let who = Tensor::f32([2, 4], vec![30.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
    let money = Tensor::f32([2, 1], vec![1.5, 12.5]).unwrap();
    assert_eq!(data.x, [("who".to_owned(), who), ("money".to_owned(), money)].into_iter().collect());
    assert_eq!(data.y, Targets::Classes(vec![1, 0]));

    // A column that is asked for is no feature, whatever else the schema says of it.
    let (_dir, source) = csv(RECORDS);
    assert_eq!(load_columns(&source, Some(&schema), &["note"]).unwrap_err().to_string().matches("line 3, column `note`").count(), 1);

    // The same rows as arrays, where a null is not a number.
    let who = Tensor::f32([2, 4], vec![30.0, 0.0, 1.0, 1.0, 0.0, f32::NAN, f32::NAN, 0.0]).unwrap();
    let money = Tensor::f32([2, 1], vec![1.5, f32::NAN]).unwrap();
    let (_dir, source) = npz(&[("who", who), ("money", money), ("y", Tensor::i64([2], vec![1, 0]).unwrap())]);
    assert_eq!(load(&source, Some(&schema)).unwrap(), data);
}

/// R82 and R83: a bad value stops it by line, column, value and rule; a column that is missing or too many by its nearest name.
#[test]
fn tables_that_break_their_columns_are_refused_by_name() {
    for (from, to, said) in [
        (",30,1", ",130,1", "line 2, column `age`: `130` is outside 0..=120, the range in the schema"),
        (",30,1", ",3.5,1", "line 2, column `age`: `3.5` is no whole number, and the type in the schema is integer"),
        (",30,1", ",16777217,1", "line 2, column `age`: `16777217` is beyond 16777216, where 32-bit floats skip whole numbers"),
        (",30,1", ",,1", "line 2, column `age`: it is empty; fill it in or leave the row out"),
        (",30,1", ",NA,1", "line 2, column `age`: `NA` is null, which the schema refuses"),
        (",30,1", ",old,1", "line 2, column `age`: `old` is not a number"),
        ("south", "soth", "line 2, column `shop`: `soth`, which is none of the 2 values in the schema; the nearest is `south`"),
        ("low", "NaN", "line 3, column `tier`: `NaN`, which is none of the 2 values"),
        ("hi,1.5", "hi,-1", "line 2, column `spent`: `-1` is outside 0..=100 EUR, the range in the schema"),
        (
            "spent,tier",
            "spend,tier",
            "no column `spent`, which the schema names; its columns are note, spend, tier, shop, age, y; the nearest is `spend`",
        ),
        ("note,spent", "ages,spent", "column `ages` is not in the schema; the nearest is `age`; correct it, or list it in csv.ignore"),
    ] {
        assert!(RECORDS.contains(from), "{from}");
        let (_dir, source) = csv(&RECORDS.replacen(from, to, 1));
        let refused = load(&source, Some(&Schema::from_toml(FEATURES).unwrap())).unwrap_err().to_string();
        assert!(refused.contains("data.csv") && refused.contains(said), "{to}: {refused}");
    }
    // One-hot codes count as what they unpack to.
    let values: Vec<String> = (0..400).map(|at| format!("\"v{at}\"")).collect();
    let wide = FEATURES.replace("\"north\", \"south\"]", &format!("\"north\", \"south\", {}]", values.join(", ")));
    let (_dir, source) = csv(RECORDS);
    let limit = Limits { bytes: 2000 };
    let refused = load_with(&source, Some(&Schema::from_toml(&wide).unwrap()), &[], limit).unwrap_err();
    assert!(matches!(refused, DataError::TooLarge { bytes: 3240, .. }), "{refused}");
    // A number that is none is a null, and this column fills nulls.
    let (_dir, source) = csv(&RECORDS.replace("hi,1.5", "hi,nan"));
    load(&source, Some(&Schema::from_toml(FEATURES).unwrap())).unwrap();
}

#[test]
fn other_files_are_refused_with_what_to_use() {
    let dir = tempfile::tempdir().unwrap();
    for (name, reason) in [("t.parquet", "save the columns as .csv or .npz"), ("x.npy", "name the folder"), ("notes.txt", "an .npz")] {
        let path = dir.path().join(name);
        fs::write(&path, "x").unwrap();
        let refused = load(&source(&path), None).unwrap_err();
        assert!(matches!(refused, DataError::Unsupported { .. }), "{refused}");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    assert!(matches!(load(&source(&dir.path().join("absent.npz")), None), Err(DataError::Io { .. })));
    assert!(matches!(load(&source(&dir.path().join("absent")), None), Err(DataError::Io { .. })));
    let folder = dir.path().join("empty");
    fs::create_dir(&folder).unwrap();
    assert!(matches!(load(&source(&folder), None), Err(DataError::MissingArray { .. })));
}

#[test]
fn the_digits_need_no_file() {
    let (data, columns) = load_columns(&"digits:12-14".parse().unwrap(), Some(&Schema::digits()), &[]).unwrap();
    assert_eq!(data.len(), 382);
    assert_eq!(columns.get("block").unwrap()[0], "12");
    assert_eq!(columns.get("block").unwrap()[381], "14");
}
