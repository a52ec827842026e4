//! The few operations that LXMERT is made of. `graph` says in terms of them what is computed; `stock` and `fused` know how.

use super::HiddenAct;
use crate::kernels::Activation;

/// A way to compute the model: each operation takes streams and returns one.
///
/// A stream is a matrix `[width, rows]` with the rows of all batch elements one after the other.
pub(super) trait Operations {
    /// A handle to an intermediate result.
    type Stream: Copy;

    /// The regions' features: `[visual_feat_dim, regions · batch]`.
    fn features(&mut self) -> Self::Stream;

    /// The regions' boxes: `[visual_pos_dim, regions · batch]`.
    fn boxes(&mut self) -> Self::Stream;

    /// The sum of word, position and token type embeddings: `[hidden, tokens · batch]`.
    fn text(&mut self) -> Self::Stream;

    /// activation(W x + b) with the matrix `name.weight` and the vector `name.bias`.
    fn linear(&mut self, name: &str, x: Self::Stream, activation: Activation) -> Self::Stream;

    /// W x + b + residual.
    fn linear_add(&mut self, name: &str, x: Self::Stream, residual: Self::Stream) -> Self::Stream;

    /// W x + b with a matrix and a vector whose names have nothing in common.
    fn linear_of(&mut self, matrix: &str, bias: &str, x: Self::Stream) -> Self::Stream;

    /// Layer norm with scale `name.weight` and shift `name.bias`.
    fn layer_norm(&mut self, name: &str, x: Self::Stream) -> Self::Stream;

    /// (a + b) / 2.
    fn mean(&mut self, a: Self::Stream, b: Self::Stream) -> Self::Stream;

    /// Scaled dot-product attention of every head. `qkv` names the fused matrix of queries, keys and values.
    fn attention(&mut self, qkv: &str, attend: Attend<Self::Stream>, keys: Keys) -> Attended<Self::Stream>;

    /// The first row of every batch element: `[width, batch]`.
    fn first_rows(&mut self, x: Self::Stream) -> Self::Stream;

    /// The rows of the images that one answer is about, in one row: `[width, batch]` → `[images · width, batch / images]`.
    fn side_by_side(&mut self, x: Self::Stream, images: usize) -> Self::Stream;
}

/// Who attends to what.
#[derive(Clone, Copy)]
pub(super) enum Attend<S> {
    /// Every row to all rows of its own stream.
    Within(S),
    /// The rows of one stream to the rows of another.
    Across { queries: S, context: S },
}

/// What is attended to, and so whose mask counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Tokens,
    Regions,
}

/// The result of an attention, or of a layer around one.
#[derive(Clone, Copy)]
pub(super) struct Attended<S> {
    /// `[hidden, queries]`.
    pub output: S,
    /// The attention's weights: `[keys, queries, heads, batch]`.
    pub probabilities: S,
}

impl From<HiddenAct> for Activation {
    fn from(act: HiddenAct) -> Self {
        match act {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::Relu => Activation::Relu,
            HiddenAct::Silu => Activation::Silu,
            HiddenAct::GeluNew => Activation::GeluNew,
        }
    }
}
