use proptest::prelude::*;
use sapwood_models::{Features, Forward, Tensor, TensorData, zoo};

use super::*;

const GOOD: &str = "[input]\nshape = [2]\nrange = [0.0, 1.0]\n[targets]\nclasses = 3\n[csv]\ntarget = \"y\"\n";

fn data() -> Dataset {
    Dataset { x: Tensor::f32([2, 2], vec![0.0, 0.5, 0.25, 1.0]).unwrap().into(), y: Targets::Classes(vec![0, 2]) }
}

#[test]
fn toml_and_json_are_one_schema() {
    let schema = Schema::from_toml(GOOD).unwrap();
    let json = serde_json::to_string(&schema).unwrap();
    assert_eq!(Schema::from_json(&json).unwrap(), schema);
    assert_eq!(Schema::from_toml(&toml::to_string(&schema).unwrap()).unwrap(), schema);
    assert_eq!(schema.csv().unwrap().target, ["y"]);
}

#[test]
fn contradictions_and_unknown_keys_are_refused() {
    let cases = [
        ("shape = [2]", "shape = [2, 0]", "must hold"),
        ("shape = [2]", "shape = [9223372036854775807, 3]", "must hold"),
        ("[0.0, 1.0]", "[1.0, 0.0]", "ascending"),
        ("[0.0, 1.0]", "[0.0, nan]", "finite"),
        ("classes = 3", "classes = 1", "at least 2"),
        ("classes = 3", "values = 2", "names 1 columns"),
        ("classes = 3", "clases = 3", "clases"),
        ("[input]", "[input]\nshpae = 3", "shpae"),
        ("target = \"y\"", "target = \"y\"\nfeatures = [\"a\"]", "csv.features names 1"),
        ("target = \"y\"", "target = \"y\"\ngroup = [\"y\"]", "`y` twice"),
        ("target = \"y\"", "target = 3", "name of a column"),
    ];
    for (from, to, reason) in cases {
        let refused = Schema::from_toml(&GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(reason), "{to}: {refused}");
    }
}

#[test]
fn examples_are_checked_by_row_and_column() {
    let schema = Schema::from_toml(GOOD).unwrap();
    schema.check("d", &data()).unwrap();

    let mut wide = data();
    wide.x = Tensor::f32([2, 2], vec![0.0, 0.5, 0.25, 1.5]).unwrap().into();
    let refused = schema.check("d", &wide).unwrap_err();
    assert_eq!(refused.to_string(), "d: row 1, column 1: 1.5 is outside 0..=1, the range in the schema");

    let mut label = data();
    label.y = Targets::Classes(vec![0, 3]);
    let refused = schema.check("d", &label).unwrap_err();
    assert!(matches!(refused, DataError::Fault { fault: DataFault::Label { row: 1, label: 3, classes: 3 }, .. }), "{refused}");

    let mut values = data();
    values.y = Targets::Values(Tensor::f32([2, 1], vec![0.0, 1.0]).unwrap());
    assert!(matches!(schema.check("d", &values), Err(DataError::Fault { fault: DataFault::Targets { .. }, .. })));
}

#[test]
fn the_digits_fit_their_schema() {
    Schema::digits().check("digits", &crate::digits::load()).unwrap();
}

const TABLE: &str = r#"
version = 3

[[inputs]]
name = "who"
columns = [
    { name = "age", type = "integer", unit = "years", range = [0, 120] },
    { name = "shop", type = "category", values = ["north", "south", "west"], encode = "one-hot", null = { fill = "west" } },
    { name = "tier", type = "category", values = ["low", "high"], null = { fill = "low" } },
    { name = "spent", range = [0, 1e6], null = { mean = 37.5 } },
]

[[inputs]]
name = "visits"
shape = []
type = "integer"
range = [1, 31]

[targets]
classes = 2
"#;

/// Rows of `who` and of `visits`.
fn table(who: &[[f32; 6]], visits: &[f32]) -> Dataset {
    let x = [
        ("who".to_owned(), Tensor::f32([who.len(), 6], who.concat()).unwrap()),
        ("visits".to_owned(), Tensor::f32([visits.len()], visits.to_vec()).unwrap()),
    ];
    Dataset { x: x.into_iter().collect(), y: Targets::Classes(vec![0; who.len()]) }
}

const ROW: [f32; 6] = [30.0, 0.0, 1.0, 0.0, 1.0, 0.1];

/// The first row is good, the second has another value at one place.
fn refused(at: usize, value: f32) -> String {
    let mut bad = ROW;
    bad[at] = value;
    Schema::from_toml(TABLE).unwrap().check("t", &table(&[ROW, bad], &[1.0, 2.0])).unwrap_err().to_string()
}

#[test]
fn the_long_form_survives_both_formats_and_the_short_form_becomes_it() {
    let schema = Schema::from_toml(TABLE).unwrap();
    assert_eq!((schema.version(), schema.inputs()[0].width(), schema.inputs()[1].shape()), (3, 6, vec![]));
    assert_eq!(Schema::parse(&serde_json::to_string(&schema).unwrap()).unwrap(), schema);
    assert_eq!(Schema::parse(&toml::to_string(&schema).unwrap()).unwrap(), schema);
    let long = GOOD.replace("[input]", "[[inputs]]");
    assert_eq!(Schema::from_toml(&long).unwrap(), Schema::from_toml(GOOD).unwrap());
}

#[test]
fn contradictions_of_the_long_form_are_refused_by_name() {
    for (from, to, reason) in [
        ("version = 3", "version = 0", "count from 1"),
        ("name = \"visits\"", "", "inputs[1] has no name"),
        ("name = \"visits\"", "name = \"who\"", "inputs `who` is there twice"),
        ("shape = []", "", "inputs `visits`: it has neither `shape` nor `columns`"),
        ("name = \"who\"", "name = \"who\"\nshape = [7]", "inputs `who`: shape = [7] holds 7 values, and the columns make 6"),
        ("name = \"who\"", "name = \"who\"\nunit = \"m\"", "said of each column"),
        ("shape = []\ntype = \"integer\"", "shape = []\ntype = \"category\"", "a category is a column"),
        ("range = [0, 120]", "range = [120, 0]", "column `age`: range = [120, 0]"),
        ("range = [0, 120]", "values = [\"a\"]", "column `age`: `values` and `encode` are for"),
        ("values = [\"low\", \"high\"]", "values = [\"low\"]", "column `tier`: a category needs two"),
        ("values = [\"low\", \"high\"]", "values = [\"low\", \"low\"]", "column `tier`: values has \"low\" twice"),
        ("fill = \"low\"", "fill = \"lowe\"", "`lowe`, which is none of the 2 values in the schema; the nearest is `low`"),
        ("fill = \"low\"", "fill = 0", "column `tier`: null is filled with 0, and a category has texts"),
        ("mean = 37.5", "fill = \"many\"", "column `spent`: null is filled with \"many\", which is no number"),
        ("mean = 37.5", "mean = -1", "null is filled with -1, which is outside 0..=1000000"),
        ("null = { mean = 37.5 }", "null = \"mean\"", "null = \"mean\" has no number; write it out"),
        ("null = { mean = 37.5 }", "null = \"drop\"", "is not \"refuse\""),
        ("null = { mean = 37.5 }", "null = { median = 3 }", "expected null = \"refuse\""),
        ("unit = \"years\"", "units = \"years\"", "unknown field `units`"),
        ("[targets]", "[input]\nshape = [1]\n[targets]", "both [input] and [[inputs]]"),
        ("classes = 2", "classes = 2\n[csv]\ntarget = \"y\"", "inputs `visits` lists no columns"),
    ] {
        assert!(TABLE.contains(from), "{from}");
        let refused = Schema::from_toml(&TABLE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(reason), "{to}: {refused}");
    }
    assert!(Schema::from_toml("[targets]\nclasses = 2").unwrap_err().to_string().contains("no [input] and no [[inputs]]"));
}

/// Every value of every input is looked at (R82, R83): file, row, feature, value and rule are told.
#[test]
fn violations_are_named_by_row_feature_value_and_rule() {
    let schema = Schema::from_toml(TABLE).unwrap();
    schema.check("t", &table(&[ROW, ROW], &[1.0, 31.0])).unwrap();
    assert_eq!(refused(0, 121.0), "t: row 1, input `who`, column `age`: 121 is outside 0..=120 years, the range in the schema");
    assert_eq!(refused(0, 30.5), "t: row 1, input `who`, column `age`: 30.5 is no whole number, and the type in the schema is integer");
    assert!(refused(0, f32::NAN).ends_with("column `age`: NaN is null, which the schema refuses"));
    assert!(refused(1, 1.0).contains("column `shop`: 1 is the second 1: a category of 3 values is one 1 and 0 elsewhere"));
    assert!(refused(2, 0.0).contains("column `shop`: 0 is 0 like all others"));
    assert!(refused(3, 0.5).contains("column `shop`: 0.5 is neither 0 nor 1"));
    assert!(refused(4, 2.0).contains("column `tier`: 2 is no index of the 2 values in the schema"));
    assert!(refused(5, f32::INFINITY).contains("column `spent`: inf is not a finite number"));
    // Not only the first input.
    let visits = schema.check("t", &table(&[ROW, ROW], &[1.0, 32.0])).unwrap_err().to_string();
    assert_eq!(visits, "t: row 1, input `visits`, column 0: 32 is outside 1..=31, the range in the schema");
    let digit: f32 = 0.1;
    assert!(Schema::from_toml(&GOOD.replace("1.0]", "0.1]")).unwrap().inputs()[0].check(&[digit, 0.0], None).is_ok());
}

#[test]
fn an_input_without_an_array_is_named_with_the_nearest() {
    let schema = Schema::from_toml(TABLE).unwrap();
    let good = table(&[ROW], &[1.0]);
    let renamed = good.x.iter().map(|(name, tensor)| (if name == "visits" { "visit".to_owned() } else { name.to_owned() }, tensor.clone()));
    let renamed = Dataset { x: renamed.collect(), y: good.y };
    let said = schema.check("t", &renamed).unwrap_err().to_string();
    assert_eq!(said, "t has no array for input `visits` of the schema; it has visit, who; the nearest is `visit`");
}

#[test]
fn nulls_are_filled_where_the_schema_says_so() {
    let schema = Schema::from_toml(TABLE).unwrap();
    let nan = f32::NAN;
    let mut data = table(&[[30.0, nan, nan, nan, nan, nan], ROW], &[1.0, 2.0]);
    schema.fill(&mut data);
    schema.check("t", &data).unwrap();
    let who = data.x.iter().find(|(name, _)| *name == "who").unwrap().1;
    assert_eq!(who.as_f32().unwrap(), [[30.0, 0.0, 0.0, 1.0, 0.0, 37.5], ROW].concat());
    // Nothing is filled in for what is refused.
    let mut data = table(&[[nan, 0.0, 0.0, 1.0, 0.0, 1.0]], &[1.0]);
    schema.fill(&mut data);
    assert!(schema.check("t", &data).unwrap_err().to_string().contains("column `age`: NaN is null"));
}

#[test]
fn a_schema_that_a_model_cannot_read_is_refused() {
    let schema = |text: &str| Schema::from_toml(&format!("{text}\n[targets]\nclasses = 2")).unwrap();
    let lstm = zoo::lstm_with_lengths([6, 1], 4, 2, 0).inputs();
    let both = |lengths: &str| schema(&format!("[[inputs]]\nname = \"input\"\nshape = [6, 1]\n[[inputs]]\nname = \"{lengths}"));
    let fit = both("lengths\"\nshape = []\ntype = \"integer\"\nrange = [1, 6]");
    let names: Vec<_> = fit.fits(&lstm).unwrap().into_iter().map(|input| input.name.clone().unwrap()).collect();
    assert_eq!(names, lstm.iter().map(|input| input.name.clone()).collect::<Vec<_>>());
    for (lengths, reason) in [
        ("length\"\nshape = []\ntype = \"integer\"", "reads `lengths`, and the schema describes input, length; the nearest is `length`"),
        ("lengths\"\nshape = []", "input `lengths`: the model reads I32; the schema must say type = \"integer\""),
        ("lengths\"\nshape = [1]\ntype = \"integer\"", "input `lengths`: the schema's examples have shape [1], the model reads []"),
    ] {
        let refused = both(lengths).fits(&lstm).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    // An only input need not know what an exporter called it.
    assert!(schema("[input]\nshape = [4]").fits(&zoo::mlp(4, &[], 2, 0).inputs()).is_ok());
    let bytes = [ValueInfo { element: Element::U8, ..zoo::mlp(4, &[], 2, 0).inputs()[0].clone() }];
    let refused = schema("[input]\nshape = [4]\ntype = \"integer\"\nrange = [0, 256]").fits(&bytes).unwrap_err().to_string();
    assert!(refused.contains("a range within [0, 255]"), "{refused}");
    schema("[input]\nshape = [4]\ntype = \"integer\"\nrange = [0, 255]").fits(&bytes).unwrap();
}

fn kinds() -> impl Strategy<Value = (&'static str, Option<[i32; 2]>)> {
    let range = prop::option::of((-9..9, 1..300).prop_map(|(low, extent)| [low, low + extent]));
    (prop::sample::select(vec!["float", "integer"]), range)
}

fn values() -> impl Strategy<Value = f32> {
    prop_oneof![8 => (0..8_i16).prop_map(f32::from), 1 => -1e3_f32..1e3, 1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, 3e9, -1.0, 0.5])]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever passes a schema that fits a model feeds the model, in the types that it reads.
    #[test]
    fn what_passes_the_schema_feeds_the_model(
        (x, n) in (kinds(), kinds()),
        elements in prop::array::uniform2(prop::sample::select(vec![Element::F32, Element::I64, Element::I32, Element::U8, Element::I8, Element::Bool])),
        swapped: bool,
        rows in prop::collection::vec(prop::array::uniform3(values()), 1..4),
    ) {
        let input = |name: &str, shape: &str, (kind, range): (&str, Option<[i32; 2]>)| {
            let range = range.map_or_else(String::new, |range| format!("range = {range:?}\n"));
            format!("[[inputs]]\nname = \"{name}\"\nshape = {shape}\ntype = \"{kind}\"\n{range}")
        };
        let text = format!("{}{}[targets]\nclasses = 2", input("x", "[2]", x), input("n", "[]", n));
        let schema = Schema::from_toml(&text).unwrap();
        let info = |name: &str, element, extents: &[usize]| {
            let batch = std::iter::once(Dim::Symbol("batch".to_owned()));
            ValueInfo { name: name.to_owned(), element, shape: batch.chain(extents.iter().copied().map(Dim::Fixed)).collect() }
        };
        let mut model = vec![info("x", elements[0], &[2]), info("n", elements[1], &[])];
        if swapped {
            model.swap(0, 1);
        }
        let (pairs, lengths): (Vec<[f32; 2]>, Vec<f32>) = rows.iter().map(|row| ([row[0], row[1]], row[2])).unzip();
        let x: Features = [
            ("x".to_owned(), Tensor::f32([rows.len(), 2], pairs.concat()).unwrap()),
            ("n".to_owned(), Tensor::f32([rows.len()], lengths).unwrap()),
        ].into_iter().collect();
        let data = Dataset { x, y: Targets::Classes(vec![1; rows.len()]) };
        if schema.fits(&model).is_ok() && schema.check("d", &data).is_ok() {
            data.x.check_for(&model).unwrap();
            let fed = data.x.feed(model.iter().map(|input| (input.name.as_str(), input.element))).unwrap();
            prop_assert!(fed.iter().zip(&model).all(|((name, tensor), input)| *name == input.name && tensor.element() == input.element));
        }
    }
}

/// As the property, through the interpreter: an LSTM that reads floats and whole numbers.
#[test]
fn what_passes_the_schema_is_answered() {
    let lengths = "name = \"lengths\"\nshape = []\ntype = \"integer\"\nrange = [1, 3]";
    let text = format!("[[inputs]]\nname = \"input\"\nshape = [3, 1]\n[[inputs]]\n{lengths}\n[targets]\nclasses = 2");
    let (schema, model) = (Schema::from_toml(&text).unwrap(), zoo::lstm_with_lengths([3, 1], 4, 2, 0));
    schema.fits(&model.inputs()).unwrap();
    let data = |length: f32| {
        let x = [
            ("input".to_owned(), Tensor::f32([2, 3, 1], vec![0.5; 6]).unwrap()),
            ("lengths".to_owned(), Tensor::f32([2], vec![1.0, length]).unwrap()),
        ];
        Dataset { x: x.into_iter().collect(), y: Targets::Classes(vec![0, 1]) }
    };
    schema.check("d", &data(3.0)).unwrap();
    let answer = Forward::new(&model).unwrap().answer(&data(3.0).x).unwrap();
    assert!(matches!(answer.data, TensorData::F32(values) if values.iter().all(|v| v.is_finite())));
    for bad in [0.0, 4.0, 1.5] {
        assert!(matches!(schema.check("d", &data(bad)), Err(DataError::Violation { .. })), "{bad}");
    }
}
