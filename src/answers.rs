//! The scores of an answer head, and the answers that they rank.

/// The scores of every answer to one question.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'s> {
    logits: &'s [f32],
    labels: Option<&'s [String]>,
}

/// One answer and how it scored. The default is a place for [`Answers::top_into`] to fill.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer<'s> {
    /// The class: its row in the answer head.
    pub class: usize,
    /// The answer's text; `None` if the model's file holds no answers.
    pub text: Option<&'s str>,
    /// The raw score.
    pub logit: f32,
    /// The logit's share among all answers, after softmax: a probability for a model that was trained with
    /// cross-entropy, a ranking for others.
    pub softmax: f32,
    /// The logistic function of the logit: the expected VQA score for a model that was trained with binary
    /// cross-entropy over soft labels, as the VQA and GQA checkpoints were.
    pub sigmoid: f32,
}

impl<'s> Answers<'s> {
    pub(crate) fn new(logits: &'s [f32], labels: Option<&'s [String]>) -> Self {
        Answers { logits, labels }
    }

    /// The raw scores by class.
    pub fn logits(&self) -> &'s [f32] {
        self.logits
    }

    /// The `count` best answers, best first; of equal scores the lower class comes first.
    pub fn top(&self, count: usize) -> Vec<Answer<'s>> {
        let mut best = vec![Answer::default(); count.min(self.logits.len())];
        self.top_into(&mut best);
        best
    }

    /// Writes the best answers to `out`, as many as fit, best first; of equal scores the lower class comes first. Returns
    /// how many there are: fewer than places if the model has fewer answers, and then the places after them keep what they
    /// held. Allocates nothing.
    pub fn top_into(&self, out: &mut [Answer<'s>]) -> usize {
        self.top_with(out, |answer| answer, |answer| answer.logit)
    }

    /// The same with places of another type: `make` turns an answer into one, and `logit` tells the score of one that is
    /// filled.
    pub(crate) fn top_with<T>(
        &self,
        out: &mut [T],
        make: impl Fn(Answer<'s>) -> T,
        logit: impl Fn(&T) -> f32,
    ) -> usize {
        let highest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = self.logits.iter().map(|logit| (logit - highest).exp()).sum();
        let answer = |class: usize, logit: f32| Answer {
            class,
            text: self.labels.map(|labels| labels[class].as_str()),
            logit,
            softmax: (logit - highest).exp() / total,
            sigmoid: 1.0 / (1.0 + (-logit).exp()),
        };
        let mut found = 0;
        for (class, &score) in self.logits.iter().enumerate() {
            // After its equals, whose classes are lower.
            let place = out[..found].partition_point(|better| logit(better).total_cmp(&score).is_ge());
            if place < out.len() {
                found = out.len().min(found + 1);
                out[place..found].rotate_right(1);
                out[place] = make(answer(class, score));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_answers_and_scores_them() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let logits = [0.0, 3.0_f32.ln(), 0.0];
        let answers = Answers::new(&logits, Some(&labels));
        let top = answers.top(2);
        assert_eq!(top.iter().map(|answer| answer.text.unwrap()).collect::<Vec<_>>(), ["b", "a"]);
        assert!((top[0].softmax - 0.6).abs() < 1e-6 && (top[0].sigmoid - 0.75).abs() < 1e-6);
        assert_eq!(answers.top(9).len(), 3);
    }

    #[test]
    fn stands_scores_far_apart() {
        let top = Answers::new(&[-1e30, 1e30], None).top(2);
        assert_eq!((top[0].class, top[0].softmax, top[1].sigmoid), (1, 1.0, 0.0));
    }

    #[test]
    fn ranks_any_scores_as_a_stable_sort_does() {
        // Few different scores, so that most have equals, among them both zeros and what is no number.
        let scores = [0.0, -0.0, 1.5, -2.0, f32::NAN, -f32::NAN, f32::INFINITY, 1.5];
        let mut state = 1u32;
        let logits: Vec<f32> = (0..100)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                scores[(state >> 29) as usize]
            })
            .collect();
        let mut classes: Vec<usize> = (0..logits.len()).collect();
        classes.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let answers = Answers::new(&logits, None);
        for count in [0, 1, 2, 7, 99, 100, 101] {
            let top: Vec<usize> = answers.top(count).iter().map(|answer| answer.class).collect();
            assert_eq!(top, classes[..count.min(100)], "{count}");
        }
    }

    #[test]
    fn fills_the_places_that_it_is_given_and_no_more() {
        let answers = Answers::new(&[1.0, 4.0, 3.0], None);
        assert_eq!(answers.top_into(&mut []), 0);
        let mut two = [Answer::default(); 2];
        assert_eq!(answers.top_into(&mut two), 2);
        assert_eq!(two.to_vec(), answers.top(2));
        let kept = Answer { class: 9, ..Answer::default() };
        let mut four = [kept; 4];
        assert_eq!(answers.top_into(&mut four), 3);
        assert_eq!(four.map(|answer| answer.class), [1, 2, 0, 9]);
        assert_eq!(four[3], kept);
    }
}
