//! What runs the quantized model, and what it wants of the graph.

use std::str::FromStr;

use crate::ModelError;

/// The processor or engine that runs the quantized model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// x86-64 without VNNI: its 8-bit multiply-add may saturate, so weights keep 7 bits.
    X86_64,
    /// x86-64 with AVX-VNNI or AVX512-VNNI.
    X86_64Vnni,
    /// 64-bit ARM.
    Aarch64,
    /// TensorRT, which takes symmetric S8 only, wants biases in f32, and fuses what follows a convolution or product only
    /// where no Q/DQ pair stands between (NVIDIA, "Working with Quantized Types", explicit quantization).
    JetsonTensorRt,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::X86_64, Self::X86_64Vnni, Self::Aarch64, Self::JetsonTensorRt];

    /// The name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X86_64Vnni => "x86_64-vnni",
            Self::Aarch64 => "aarch64",
            Self::JetsonTensorRt => "jetson-tensorrt",
        }
    }

    pub(super) fn reduce_range(self) -> bool {
        self == Self::X86_64
    }

    /// Whether activations are S8 around 0, and not U8 with a zero point.
    pub(super) fn symmetric(self) -> bool {
        self == Self::JetsonTensorRt
    }

    pub(super) fn integer_bias(self) -> bool {
        self != Self::JetsonTensorRt
    }

    /// Whether a Q/DQ pair goes behind this operator.
    pub(super) fn quantizes_output(self, operator: &str) -> bool {
        self != Self::JetsonTensorRt || !matches!(operator, "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "Add")
    }
}

impl FromStr for Target {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(|| ModelError::Setting {
            name: "target",
            value: name.to_owned(),
            reason: Self::ALL.map(Self::name).join(", "),
        })
    }
}
