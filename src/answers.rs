//! The scores of an answer head, and the answers that they rank.

/// The scores of every answer to one question.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'s> {
    logits: &'s [f32],
    labels: Option<&'s [String]>,
}

/// One answer and how it scored.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        let mut classes: Vec<usize> = (0..self.logits.len()).collect();
        classes.sort_by(|a, b| self.logits[*b].total_cmp(&self.logits[*a]));
        classes.truncate(count);
        let highest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = self.logits.iter().map(|logit| (logit - highest).exp()).sum();
        let answer = |class: usize| {
            let logit = self.logits[class];
            Answer {
                class,
                text: self.labels.map(|labels| labels[class].as_str()),
                logit,
                softmax: (logit - highest).exp() / total,
                sigmoid: 1.0 / (1.0 + (-logit).exp()),
            }
        };
        classes.into_iter().map(answer).collect()
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
}
