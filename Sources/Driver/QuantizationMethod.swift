import Base
import IR
import Passes

/// How the codes of quantized weights are chosen.
package enum QuantizationMethod: String, Hashable, Sendable, CaseIterable {
  /// Each weight is rounded to the nearest code, also where samples serve something else.
  case rtn
  /// By the effect on samples (``ChooseCodes``).
  case gptq
  /// The same by moving codes from the nearest, one at a time.
  case adaptive
  /// What gives the best results with the samples there are: as `gptq`, for models that embed with 8 or 16 levels that
  /// are fitted to each tensor in place of even steps of 3 or 4 bits; for networks of tensors biases that make up for the
  /// rounding.
  case best
}
