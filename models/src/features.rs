//! What a model reads of some examples: one tensor for each of its inputs.

use std::collections::BTreeMap;

use crate::dataset::{DataFault, ShowDims};
use crate::onnx::{Dim, Element, ValueInfo};
use crate::tensor::{Tensor, TensorData};

/// The features of most data sets, which have one tensor of them; in files, the array of this name.
pub const MAIN: &str = "x";

/// Tensors by name; the first axis of each is the examples. Values are 32-bit floats, whatever type the model reads.
///
/// A tensor goes to the model's input of its name. If one input is left then, [`MAIN`] goes there, or the only tensor that there is:
/// data need not know what an exporter called the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Features(BTreeMap<String, Tensor>);

impl From<Tensor> for Features {
    fn from(x: Tensor) -> Self {
        Self(BTreeMap::from([(MAIN.to_owned(), x)]))
    }
}

impl FromIterator<(String, Tensor)> for Features {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl Features {
    /// Number of examples: the rows of the first tensor, 0 without any.
    pub fn rows(&self) -> usize {
        self.0.values().next().map_or(0, Tensor::rows)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor, if there is one only.
    pub fn only(&self) -> Option<&Tensor> {
        let mut all = self.0.values();
        all.next().filter(|_| all.next().is_none())
    }

    /// As [`Features::only`], to be changed.
    pub fn only_mut(&mut self) -> Option<&mut Tensor> {
        let mut all = self.0.values_mut();
        all.next().filter(|_| all.next().is_none())
    }

    /// Values in all tensors.
    pub fn numel(&self) -> usize {
        self.0.values().map(Tensor::numel).sum()
    }

    /// Values of one example in all tensors.
    pub fn row_len(&self) -> usize {
        self.0.values().map(Tensor::row_len).sum()
    }

    /// The named rows, in that order; rows may repeat.
    ///
    /// # Panics
    /// If a row is not in every tensor, as slice indexing does.
    pub fn take_rows(&self, rows: &[usize]) -> Self {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor.take_rows(rows))).collect()
    }

    /// Adds the rows of `more` behind those of this one. False if the tensors have other names or shapes; the rows are worth
    /// nothing then.
    #[must_use]
    pub fn append(&mut self, more: &Self) -> bool {
        let same = self.0.keys().eq(more.0.keys());
        same && self.0.iter_mut().zip(more.0.values()).all(|((_, tensor), more)| tensor.append(more))
    }

    /// The tensor that a model of this one input reads.
    ///
    /// # Errors
    /// [`DataFault::Missing`] if there is none for it.
    pub fn for_input(&self, input: &str) -> Result<&Tensor, DataFault> {
        Ok(&self.0[self.source(input)?])
    }

    /// The same features with another tensor in the place of the one that `input` reads.
    ///
    /// # Errors
    /// [`DataFault::Missing`] if there is none for it.
    pub fn replaced(mut self, input: &str, by: Tensor) -> Result<Self, DataFault> {
        let name = self.source(input)?.to_owned();
        self.0.insert(name, by);
        Ok(self)
    }

    /// The values of the tensor that `input`, one of a model's `inputs`, reads, to be changed; none if there is none for it.
    pub fn values_mut(&mut self, inputs: &[&str], input: &str) -> Option<&mut [f32]> {
        let at = inputs.iter().position(|name| *name == input)?;
        let source = (*self.sources(inputs).ok()?.get(at)?).to_owned();
        match &mut self.0.get_mut(&source)?.data {
            TensorData::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The tensors that a model reads, in the order of its inputs, in the types that it reads.
    ///
    /// # Errors
    /// [`DataFault::Missing`] without a tensor for an input; [`DataFault::NotOfType`] for a value that its type does not have.
    pub fn feed<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, Element)>) -> Result<Vec<(&'a str, Tensor)>, DataFault> {
        let inputs: Vec<(&str, Element)> = inputs.into_iter().collect();
        let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
        let sources = self.sources(&names)?;
        let read = |((name, element), source): ((&'a str, Element), &str)| {
            let tensor = &self.0[source];
            let read = tensor.clone().read_as(element);
            Ok((name, read.map_err(|at| self.within(source, not_of_type(tensor, at, element)))?))
        };
        inputs.into_iter().zip(sources).map(read).collect()
    }

    /// Checks shapes and types against the inputs of a model; the first dim of each is the batch.
    ///
    /// # Errors
    /// [`DataFault::Missing`], [`DataFault::Shape`] or [`DataFault::NotOfType`] for the first that does not fit.
    pub fn check_for(&self, inputs: &[ValueInfo]) -> Result<(), DataFault> {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        for (input, source) in inputs.iter().zip(self.sources(&names)?) {
            let tensor = &self.0[source];
            check_shape(tensor, &input.shape).map_err(|fault| self.within(source, fault))?;
            if input.element != Element::F32 {
                let read = tensor.clone().read_as(input.element);
                read.map_err(|at| self.within(source, not_of_type(tensor, at, input.element)))?;
            }
        }
        Ok(())
    }

    /// Checks the tensors themselves: as many rows in each, 32-bit floats, finite.
    pub(crate) fn check(&self) -> Result<(), DataFault> {
        for (name, tensor) in &self.0 {
            check(tensor, self.rows()).map_err(|fault| self.within(name, fault))?;
        }
        if self.rows() == 0 { Err(DataFault::Empty) } else { Ok(()) }
    }

    fn source(&self, input: &str) -> Result<&str, DataFault> {
        Ok(self.sources(&[input])?[0])
    }

    /// The name of the tensor for each input.
    fn sources(&self, inputs: &[&str]) -> Result<Vec<&str>, DataFault> {
        sources(&self.0.keys().map(String::as_str).collect::<Vec<_>>(), inputs)
    }

    /// A fault, with the name of the tensor where there are several.
    fn within(&self, name: &str, fault: DataFault) -> DataFault {
        if self.0.len() == 1 { fault } else { DataFault::Within { name: name.to_owned(), fault: Box::new(fault) } }
    }
}

/// Which of the tensors `have` each input reads, as [`Features`] says.
///
/// # Errors
/// [`DataFault::Missing`] without one for an input.
pub fn sources<'a>(have: &[&'a str], inputs: &[&str]) -> Result<Vec<&'a str>, DataFault> {
    let own = |input: &&str| have.iter().copied().find(|name| name == input);
    let unnamed = inputs.iter().filter(|input| own(input).is_none()).count();
    let main = have.iter().copied().find(|name| *name == MAIN && !inputs.contains(&MAIN));
    let other = main.or_else(|| have.first().copied().filter(|_| have.len() == 1));
    let other = other.filter(|name| unnamed == 1 && !inputs.contains(name));
    let found: Option<Vec<&str>> = inputs.iter().map(|input| own(input).or(other)).collect();
    found.ok_or_else(|| {
        let list = |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
        let inputs = list(&mut inputs.iter().copied().filter(|input| own(input).is_none()));
        DataFault::Missing { inputs, found: list(&mut have.iter().copied()) }
    })
}

fn check(tensor: &Tensor, rows: usize) -> Result<(), DataFault> {
    super::dataset::consistent("features", tensor)?;
    let TensorData::F32(values) = &tensor.data else {
        return Err(DataFault::Element { found: format!("{:?}", tensor.element()) });
    };
    if tensor.shape.is_empty() || tensor.rows() != rows {
        return Err(DataFault::FeatureRows { rows: tensor.shape.first().copied().unwrap_or(0), others: rows });
    }
    match super::dataset::first_not_finite(values, tensor.row_len()) {
        Some((row, column, value)) => Err(DataFault::NotFinite { row, column, value }),
        None => Ok(()),
    }
}

/// Whether examples have the shape that an input declares.
pub(crate) fn check_shape(tensor: &Tensor, input: &[Dim]) -> Result<(), DataFault> {
    let fits = input.len() == tensor.shape.len()
        && input.iter().zip(&tensor.shape).skip(1).all(|(dim, have)| match dim {
            Dim::Fixed(n) => n == have,
            Dim::Symbol(_) => true,
        });
    if fits {
        return Ok(());
    }
    Err(DataFault::Shape { expected: ShowDims(input).to_string(), found: format!("{:?}", tensor.shape) })
}

fn not_of_type(tensor: &Tensor, at: usize, element: Element) -> DataFault {
    let width = tensor.row_len().max(1);
    let value = tensor.as_f32().and_then(|values| values.get(at)).map_or_else(String::new, f32::to_string);
    DataFault::NotOfType { row: at / width, column: at % width, value, element }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::f32([values.len()], values.to_vec()).unwrap()
    }

    fn features(names: &[&str]) -> Features {
        names.iter().zip(1..).map(|(name, i)| ((*name).to_owned(), tensor(&[i as f32, 0.0]))).collect()
    }

    /// The first value of what each input is given.
    fn fed(features: &Features, inputs: &[&str]) -> Result<Vec<f32>, DataFault> {
        let fed = features.feed(inputs.iter().map(|name| (*name, Element::F32)))?;
        Ok(fed.iter().map(|(_, tensor)| tensor.as_f32().unwrap()[0]).collect())
    }

    #[test]
    fn a_tensor_goes_to_the_input_of_its_name() {
        let two = features(&["lengths", "x"]);
        assert_eq!(fed(&two, &["x", "lengths"]).unwrap(), [2.0, 1.0]);
        assert_eq!(fed(&two, &["lengths"]).unwrap(), [1.0]);
        assert_eq!(fed(&features(&["a", "b"]), &["b", "a"]).unwrap(), [2.0, 1.0]);
    }

    #[test]
    fn what_no_name_fits_goes_to_the_one_input_that_is_left() {
        assert_eq!(fed(&features(&["x"]), &["onnx::Conv_0"]).unwrap(), [1.0]);
        assert_eq!(fed(&features(&["pixels"]), &["input"]).unwrap(), [1.0]);
        assert_eq!(fed(&features(&["lengths", "x"]), &["input", "lengths"]).unwrap(), [2.0, 1.0]);
    }

    #[test]
    fn nothing_is_guessed_where_two_could_be_meant() {
        let missing = |features: &Features, inputs: &[&str]| match fed(features, inputs) {
            Err(DataFault::Missing { inputs, .. }) => inputs,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&features(&["x"]), &["a", "b"]), "`a` and `b`");
        assert_eq!(missing(&features(&["a", "b"]), &["c"]), "`c`");
        // The only tensor has a reader already.
        assert_eq!(missing(&features(&["x"]), &["x", "lengths"]), "`lengths`");
        assert_eq!(missing(&features(&["mask"]), &["mask", "tokens"]), "`tokens`");
        let said = fed(&features(&["length", "x"]), &["x", "lengths"]).unwrap_err().to_string();
        assert_eq!(said, "the model reads `lengths`, and the data has `length` and `x`");
    }

    #[test]
    fn values_come_in_the_type_of_the_input() {
        let two = features(&["lengths", "x"]);
        let fed = two.feed([("x", Element::F32), ("lengths", Element::I64)]).unwrap();
        assert_eq!(fed[1].1.as_i64().unwrap(), [1, 0]);
        let half: Features = [("lengths".to_owned(), tensor(&[1.0, 0.5])), ("x".to_owned(), tensor(&[0.0, 0.0]))].into_iter().collect();
        let said = half.feed([("x", Element::F32), ("lengths", Element::I64)]).unwrap_err().to_string();
        assert_eq!(said, "`lengths`: row 1, column 0: 0.5 is no I64, which the model reads");
    }

    #[test]
    fn tensors_of_different_examples_are_refused() {
        let uneven: Features = [("a".to_owned(), tensor(&[1.0])), ("b".to_owned(), tensor(&[1.0, 2.0]))].into_iter().collect();
        assert_eq!(uneven.check().unwrap_err().to_string(), "`b`: 2 rows of features, the others have 1");
        assert_eq!(Features::from_iter([]).check().unwrap_err(), DataFault::Empty);
    }

    #[test]
    fn rows_are_taken_and_added_in_every_tensor() {
        let mut two = features(&["a", "b"]).take_rows(&[1, 0]);
        assert!(two.append(&features(&["a", "b"])));
        let values: Vec<_> = two.iter().map(|(_, tensor)| tensor.as_f32().unwrap().to_vec()).collect();
        assert_eq!(values, [[0.0, 1.0, 1.0, 0.0], [0.0, 2.0, 2.0, 0.0]]);
        assert!(!two.append(&features(&["a", "c"])));
        assert_eq!((two.rows(), two.row_len(), two.numel()), (4, 2, 8));
    }

    #[test]
    fn one_tensor_is_exchanged_for_another() {
        let scaled = features(&["lengths", "x"]).replaced("pixels", tensor(&[7.0, 7.0])).unwrap();
        assert_eq!(fed(&scaled, &["input", "lengths"]).unwrap(), [7.0, 1.0]);
    }
}
