//! Handles that free themselves, and the easy-VQA model to try everything with.

use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

pub struct Model(pub *mut lxmert_model);

pub struct Session(pub *mut lxmert_session);

// As in C: what a handle may do on which thread is the interface's business.
unsafe impl Send for Session {}
unsafe impl Sync for Session {}

impl Drop for Model {
    fn drop(&mut self) {
        c!(lxmert_model_free(self.0));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        c!(lxmert_session_free(self.0));
    }
}

/// Demands success.
#[track_caller]
pub fn ok(status: lxmert_status) {
    assert_eq!(status, LXMERT_OK, "{}", last_error());
}

/// Demands a failure whose text is one line with that in it.
#[track_caller]
pub fn refused(status: lxmert_status, expected: lxmert_status, words: &str) {
    let text = last_error();
    assert_eq!(status, expected, "{text}");
    assert!(text.contains(words), "{words:?} is not in {text:?}");
    assert!(!text.contains('\n') && text.len() < 1024);
}

pub fn string(pointer: *const c_char) -> String {
    assert!(!pointer.is_null());
    c!(CStr::from_ptr(pointer)).to_str().unwrap().to_owned()
}

pub fn last_error() -> String {
    string(lxmert_last_error())
}

pub fn session_error(session: &Session) -> String {
    let mut buffer = [0; 1024];
    ok(c!(lxmert_session_last_error(session.0, buffer.as_mut_ptr(), buffer.len())));
    string(buffer.as_ptr())
}

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/easy-vqa")
}

pub fn file() -> PathBuf {
    directory().join("easy-vqa-q8_0.gguf")
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

pub fn open(path: &Path) -> Model {
    let mut model = null_mut();
    ok(c!(lxmert_model_open(c_path(path).as_ptr(), &mut model)));
    Model(model)
}

pub fn easy_vqa() -> Model {
    open(&file())
}

/// Zeros with their size, as the header's macros make them.
pub trait Sized: Copy {
    fn sized() -> Self;
}

macro_rules! sized {
    ($($name:ident),*) => {
        $(impl Sized for $name {
            fn sized() -> Self {
                let zeros: Self = unsafe { std::mem::zeroed() };
                $name { struct_size: size_of::<Self>(), ..zeros }
            }
        })*
    };
}

sized!(
    lxmert_device_info,
    lxmert_loader,
    lxmert_model_info,
    lxmert_session_options,
    lxmert_memory_plan,
    lxmert_session_info
);
sized!(lxmert_inputs, lxmert_tensor);

pub fn session_with(model: &Model, change: impl FnOnce(&mut lxmert_session_options)) -> Session {
    let mut options = lxmert_session_options::sized();
    options.threads = 1;
    change(&mut options);
    let mut session = null_mut();
    ok(c!(lxmert_session_create(model.0, &options, &mut session)));
    Session(session)
}

pub fn session(model: &Model) -> Session {
    session_with(model, |_| ())
}

/// An example's pixels.
pub struct Picture {
    pub rgb: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

pub fn picture(name: &str) -> Picture {
    let image = lxmert::vision::load_image(&directory().join(name)).unwrap();
    Picture { width: image.width(), height: image.height(), rgb: image.into_raw() }
}

pub fn encode(session: &Session, picture: &Picture) -> lxmert_status {
    c!(lxmert_encode_pixels(session.0, picture.rgb.as_ptr(), picture.width, picture.height, 0))
}

pub const NO_ANSWER: lxmert_answer =
    lxmert_answer { label: usize::MAX, text: std::ptr::null(), logit: 0.0, softmax: 0.0, sigmoid: 0.0 };

pub fn ask(session: &Session, question: &str, capacity: usize) -> Result<Vec<lxmert_answer>, lxmert_status> {
    let question = CString::new(question).unwrap();
    let mut answers = vec![NO_ANSWER; capacity];
    let mut count = usize::MAX;
    let status =
        c!(lxmert_ask(session.0, question.as_ptr(), answers.as_mut_ptr(), answers.len(), &mut count));
    answers.truncate(count);
    if status == LXMERT_OK { Ok(answers) } else { Err(status) }
}

/// That a session is none the worse for what was tried with it.
#[track_caller]
pub fn still_answers(session: &Session) {
    ok(encode(session, &picture("example_0.png")));
    let answers = ask(session, "what shape is present?", 1).unwrap();
    assert_eq!(string(answers[0].text), "circle");
}

pub fn info(model: &Model) -> lxmert_model_info {
    let mut info = lxmert_model_info::sized();
    ok(c!(lxmert_model_get_info(model.0, &mut info)));
    info
}

pub fn session_info(session: &Session) -> lxmert_session_info {
    let mut info = lxmert_session_info::sized();
    ok(c!(lxmert_session_get_info(session.0, &mut info)));
    info
}

pub fn output(session: &Session, name: &CStr) -> (Vec<usize>, Vec<f32>) {
    let mut tensor = lxmert_tensor::sized();
    ok(c!(lxmert_output(session.0, name.as_ptr(), &mut tensor)));
    let shape = tensor.shape[..tensor.rank].to_vec();
    assert!(tensor.shape[tensor.rank..].iter().all(|size| *size == 0));
    let data = c!(std::slice::from_raw_parts(tensor.data, shape.iter().product()));
    (shape, data.to_vec())
}
