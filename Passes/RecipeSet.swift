import IR

/// The values of a function that depend on constants alone (not on symbols either), at one time: values added later count as others.
struct RecipeSet {
  private var flags: [Bool]

  init(_ graph: Graph) {
    flags = graph.recipeFlags
  }

  func contains(_ value: ValueID) -> Bool { Int(value.index) < flags.count && flags[Int(value.index)] }
}
