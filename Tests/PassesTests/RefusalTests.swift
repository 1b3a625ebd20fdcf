import IR
import Passes
import Testing

/// What folds say of the places that they leave as they are.
@Suite struct RefusalTests {
  /// The lines that a pass gives on the function `name` of a case file.
  static func refusals(_ pass: String, _ file: String, _ name: String) throws -> [String] {
    let section = try CaseFile(file).sections[0]
    var model = try Parser.parse(section.text)
    model.functions = model.functions.filter { $0.name == name }
    let lines = Lines()
    var context = PassContext()
    context.explainedPass = String(pass.prefix { $0 != "{" })
    context.explainRefusal = { lines.all.append($0) }
    try PassManager().run(Pipeline(parsing: pass, registry: .all), on: &model, &context)
    return lines.all
  }

  private final class Lines {
    var all: [String] = []
  }

  @Test(arguments: [
    ("fold-affine", "fold-affine.mir", "no_neighbour", "an activation or a residual stands between"),
    ("fold-affine", "fold-affine.mir", "other_weights", "the weight has other users"),
    ("fold-affine", "fold-affine.mir", "other_weights", "the weight is stored in f16"),
    ("fold-affine", "fold-affine.mir", "not_all", "'relu' uses '%m' as it is"),
    ("fold-affine", "fold-affine.mir", "not_all", "zeros of padding come between"),
    ("fold-batch-norm", "fold-batch-norm.mir", "before_padding", "zeros of padding come between"),
    ("fold-batch-norm", "fold-batch-norm.mir", "behind_an_activation", "an activation or a residual stands between"),
    ("fold-repconv", "fold-repconv.mir", "other_dilation", "branches differ in dilations"),
    ("fold-repconv", "fold-repconv.mir", "crossed", "no window holds the other"),
    ("fold-norm", "fold-norm.mir", "tied", "the weight has other users"),
    ("collapse-linear", "collapse-linear.mir", "low_rank", "one product would be more work than both"),
    ("rotate{at=[residual]}", "rotate.mir", "post_norm", "is a norm with a gain, which is added to the stream"),
    ("rotate{at=[residual]}", "rotate.mir", "post_norm", "the weight has other users"),
    ("rotate{at=[residual]}", "rotate.mir", "tied", "turned at run time: the gain of '%m' stays: the weight has other"),
    ("smooth", "smooth.mir", "output", "'%n' is an output, or is used as it is"),
    ("remove-dead-units{granularity=1}", "remove-dead-units.mir", "masks", "heads have masks of their own"),
  ])
  func sayWhy(pass: String, file: String, function: String, reason: String) throws {
    let lines = try Self.refusals(pass, file, function)
    #expect(lines.contains { $0.hasPrefix("%") && $0.contains(reason) }, "\(lines)")
  }
}
