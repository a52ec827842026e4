//! The operations that a graph is built of. They panic where ggml would abort: shapes follow from a configuration and limits that have been
//! checked.

use ggml_sys_bindings as sys;

use super::{Graph, Tensor};

impl<'g> Graph<'g> {
    /// matrix · x: [k, m] · [k, n, …] → [m, n, …]; the matrix may be quantized.
    pub fn mul_mat(&self, matrix: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
        let ([k, _, m2, m3], [x0, _, x2, x3]) = (matrix.dims(), x.dims());
        assert!(k == x0 && x2.is_multiple_of(m2) && x3.is_multiple_of(m3), "shapes of a product");
        assert!(matrix.strides()[0] <= matrix.strides()[1], "a transposed matrix");
        self.binary(sys::ggml_mul_mat, matrix, x)
    }

    /// a + b, with b repeated where its axes are 1.
    pub fn add(&self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        assert_repeats(b, a);
        self.binary(sys::ggml_add, a, b)
    }

    /// a · b element by element, with b repeated where its axes are 1.
    pub fn mul(&self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        assert_repeats(b, a);
        self.binary(sys::ggml_mul, a, b)
    }

    /// x · factor.
    pub fn scale(&self, x: Tensor<'g>, factor: f32) -> Tensor<'g> {
        // SAFETY: context and tensor are valid.
        self.wrap(unsafe { sys::ggml_scale(self.room_for_one(), x.raw.as_ptr(), factor) })
    }

    /// (x − mean) / √(variance + epsilon) over the first axis.
    pub fn norm(&self, x: Tensor<'g>, epsilon: f32) -> Tensor<'g> {
        // SAFETY: context and tensor are valid.
        self.wrap(unsafe { sys::ggml_norm(self.room_for_one(), x.raw.as_ptr(), epsilon) })
    }

    /// GELU with the error function.
    pub fn gelu_erf(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_gelu_erf, x)
    }

    /// max(0, x).
    pub fn relu(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_relu, x)
    }

    /// x · sigmoid(x).
    pub fn silu(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_silu, x)
    }

    /// tanh(x).
    pub fn tanh(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_tanh, x)
    }

    /// softmax(x · scale + mask) over the first axis. The mask `[keys, ≥ queries, 1 or …, batch]` is f32.
    pub fn soft_max(&self, x: Tensor<'g>, mask: Option<Tensor<'g>>, scale: f32) -> Tensor<'g> {
        if let Some(mask) = mask {
            let ([x0, x1, x2, x3], [m0, m1, m2, m3]) = (x.dims(), mask.dims());
            let fits = m0 == x0 && m1 >= x1 && x2.is_multiple_of(m2) && x3.is_multiple_of(m3);
            assert!(fits && mask.is_contiguous(), "shape of a mask");
        }
        assert!(x.is_contiguous(), "softmax of a view");
        let mask = mask.map_or(std::ptr::null_mut(), |mask| mask.raw.as_ptr());
        // SAFETY: context and tensors are valid.
        let soft_max =
            unsafe { sys::ggml_soft_max_ext(self.room_for_one(), x.raw.as_ptr(), mask, scale, 0.0) };
        self.wrap(soft_max)
    }

    /// The table's rows at `indices`: [width, rows] → [width, indices], in f32.
    ///
    /// Whoever fills the indices answers for their range.
    pub fn get_rows(&self, table: Tensor<'g>, indices: Tensor<'g>) -> Tensor<'g> {
        assert!(table.dims()[2..] == [1, 1] && indices.dims()[1..] == [1, 1, 1], "shapes of a look-up");
        self.binary(sys::ggml_get_rows, table, indices)
    }

    /// A view of `x` with its own sizes, strides in bytes for all axes but the first, and start in bytes.
    pub fn view(&self, x: Tensor<'g>, dims: [usize; 4], strides: [usize; 3], offset: usize) -> Tensor<'g> {
        let last: usize = dims[1..].iter().zip(strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        // SAFETY: the tensor is valid.
        let (row, whole) = unsafe {
            let raw = x.raw.as_ptr();
            (sys::ggml_row_size((*raw).type_, dims[0] as i64), sys::ggml_nbytes(raw))
        };
        assert!(offset + last + row <= whole, "a view beyond its tensor");
        let [ne0, ne1, ne2, ne3] = dims.map(|dim| dim as i64);
        let [nb1, nb2, nb3] = strides;
        // SAFETY: context and tensor are valid, and the view lies within the tensor.
        let view = unsafe {
            sys::ggml_view_4d(self.room_for_one(), x.raw.as_ptr(), ne0, ne1, ne2, ne3, nb1, nb2, nb3, offset)
        };
        self.wrap(view)
    }

    /// The rows `start..start + count` of a matrix or vector `[k, m]`; of a vector, its elements.
    pub fn rows(&self, x: Tensor<'g>, start: usize, count: usize) -> Tensor<'g> {
        let ([k, m, ..], [element, row, ..]) = (x.dims(), x.strides());
        if m == 1 {
            return self.view(x, [count, 1, 1, 1], [element * count; 3], start * element);
        }
        self.view(x, [k, count, 1, 1], [row, row * count, row * count], start * row)
    }

    /// The same numbers in the same order under other sizes.
    pub fn reshape(&self, x: Tensor<'g>, dims: [usize; 4]) -> Tensor<'g> {
        assert!(x.is_contiguous() && x.elements() == dims.iter().product::<usize>(), "a reshaped view");
        let [ne0, ne1, ne2, ne3] = dims.map(|dim| dim as i64);
        // SAFETY: context and tensor are valid, and the sizes agree.
        self.wrap(unsafe { sys::ggml_reshape_4d(self.room_for_one(), x.raw.as_ptr(), ne0, ne1, ne2, ne3) })
    }

    /// A view in which axis i of `x` has become axis `axes[i]`.
    pub fn permute(&self, x: Tensor<'g>, axes: [usize; 4]) -> Tensor<'g> {
        let mut sorted = axes;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3], "a permutation");
        let [a, b, c, d] = axes.map(|axis| axis as i32);
        // SAFETY: context and tensor are valid, and the axes are a permutation.
        self.wrap(unsafe { sys::ggml_permute(self.room_for_one(), x.raw.as_ptr(), a, b, c, d) })
    }

    /// A copy in f32.
    pub fn to_f32(&self, x: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: context and tensor are valid; ggml unpacks every type there is.
        self.wrap(unsafe {
            sys::ggml_cast(self.room_for_one(), x.raw.as_ptr(), sys::ggml_type::GGML_TYPE_F32)
        })
    }

    /// A copy without gaps between the elements.
    pub fn contiguous(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_cont, x)
    }

    fn unary(
        &self,
        operation: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
        x: Tensor<'g>,
    ) -> Tensor<'g> {
        // SAFETY: context and tensor are valid; the operation takes any shape.
        self.wrap(unsafe { operation(self.room_for_one(), x.raw.as_ptr()) })
    }

    fn binary(
        &self,
        operation: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
        a: Tensor<'g>,
        b: Tensor<'g>,
    ) -> Tensor<'g> {
        // SAFETY: context and tensors are valid; the caller has checked the shapes.
        self.wrap(unsafe { operation(self.room_for_one(), a.raw.as_ptr(), b.raw.as_ptr()) })
    }
}

fn assert_repeats(small: Tensor<'_>, large: Tensor<'_>) {
    let fits = large.dims().iter().zip(small.dims()).all(|(large, small)| large.is_multiple_of(small));
    assert!(fits, "shapes {:?} and {:?} of an element-wise operation", large.dims(), small.dims());
}
