// What ggml's backend calls of files that cuda.rs leaves out. Where ggml asks before it calls, the answer is no, and so the scheduler
// gives such an operation to another backend. The rest is reached only with weights of types that this project does not write.

#include "ggml-cuda/common.cuh"
#include "ggml-cuda/fattn.cuh"

// Attention in one operation.
bool ggml_cuda_flash_attn_ext_supported(int, const ggml_tensor *) {
    return false;
}

size_t ggml_cuda_flash_attn_ext_get_alloc_size(int, const ggml_tensor * tensor) {
    return ggml_nbytes(tensor);
}

void ggml_cuda_flash_attn_ext(ggml_backend_cuda_context &, ggml_tensor *) {
    GGML_ABORT("flash attention is not compiled in");
}

// Products of f32, f16 or bf16 with up to 16 columns: cuBLAS or ggml's kernels for vectors compute them.
bool ggml_cuda_should_use_mmf(ggml_type, int, int, const int64_t *, const size_t *, int, bool) {
    return false;
}

void ggml_cuda_mul_mat_f(
    ggml_backend_cuda_context &, const ggml_tensor *, const ggml_tensor *, const ggml_tensor *, ggml_tensor *) {
    GGML_ABORT("products with few columns are not compiled in");
}

// Products of quantized matrices. The template is declared anew: the header with its definition promises these instances from elsewhere.
struct mmq_args;

template <ggml_type type, ggml_prec activations>
void mul_mat_q_case(ggml_backend_cuda_context &, const mmq_args &, cudaStream_t) {
    GGML_ABORT("products of matrices of type %s are not compiled in", ggml_type_name(type));
}

#define ABSENT(type, activations) \
    template void mul_mat_q_case<type, activations>(ggml_backend_cuda_context &, const mmq_args &, cudaStream_t)

ABSENT(GGML_TYPE_Q1_0, GGML_PREC_Q8);
ABSENT(GGML_TYPE_Q2_0, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ1_S, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ2_XXS, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ2_XS, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ2_S, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ3_XXS, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ3_S, GGML_PREC_Q8);
ABSENT(GGML_TYPE_IQ4_XS, GGML_PREC_Q8);
ABSENT(GGML_TYPE_MXFP4, GGML_PREC_Q8);
ABSENT(GGML_TYPE_MXFP4, GGML_PREC_Q4);
ABSENT(GGML_TYPE_NVFP4, GGML_PREC_Q8);
ABSENT(GGML_TYPE_NVFP4, GGML_PREC_Q4);
