//! Calls that may end in ggml's abort or in a C++ exception, as those of a device's driver do.

use std::ffi::{CStr, c_char, c_void};

unsafe extern "C-unwind" {
    fn lxmert_ggml_guard(
        body: unsafe extern "C-unwind" fn(*mut c_void),
        data: *mut c_void,
        text: *mut c_char,
        size: usize,
    ) -> bool;
}

/// What [`guarded`] returns where memory for the threads of a pool, or for C++, could not be had. Of the pool nothing is left then.
pub const OUT_OF_MEMORY: &str = "out of memory";

/// Runs `body`. Where ggml aborts or an exception leaves it, returns what either says.
///
/// # Errors
/// That text. What the body was working on is then in no state that anything may be said about: it may neither be used nor freed.
///
/// # Safety
/// Of what the body owns nothing may have to be dropped while it is unwound, and it may not panic. Threads other than this one still end
/// the process.
pub unsafe fn guarded<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    /// The body, and then its result.
    struct Call<F, R> {
        body: Option<F>,
        result: Option<R>,
    }
    unsafe extern "C-unwind" fn run<F: FnOnce() -> R, R>(call: *mut c_void) {
        // SAFETY: points to the variable below, which nothing else uses meanwhile.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        call.result = call.body.take().map(|body| body());
    }
    fn runner<F: FnOnce() -> R, R>(_: &Call<F, R>) -> unsafe extern "C-unwind" fn(*mut c_void) {
        run::<F, R>
    }

    let mut call = Call { body: Some(body), result: None };
    let run = runner(&call);
    let mut text = [0u8; 512];
    // SAFETY: `run` takes what it is given here; the text has room for that many bytes and ends with a NUL.
    let done =
        unsafe { lxmert_ggml_guard(run, (&raw mut call).cast(), text.as_mut_ptr().cast(), text.len()) };
    match call.result {
        Some(result) if done => Ok(result),
        _ => {
            let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
            Err(text.to_string_lossy().into_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml_abort;

    fn abort(text: &CStr) -> Result<(), String> {
        // SAFETY: nothing has to be dropped; the texts end with a NUL.
        unsafe { guarded(|| ggml_abort(c"file.c".as_ptr(), 7, c"%s".as_ptr(), text.as_ptr())) }
    }

    #[test]
    fn an_abort_becomes_an_error_each_time() {
        for text in [c"device lost", c"no memory"] {
            assert_eq!(abort(text), Err(format!("file.c:7: {}", text.to_str().unwrap())));
        }
        // SAFETY: the body does nothing.
        assert_eq!(unsafe { guarded(|| 42) }, Ok(42));
    }

    #[test]
    fn an_inner_abort_leaves_the_outer_call_as_it_is() {
        // SAFETY: nothing that the body owns is dropped by an unwinding, since the inner call ends it.
        let outer = unsafe { guarded(|| abort(c"inside").is_err()) };
        assert_eq!(outer, Ok(true));
    }
}
