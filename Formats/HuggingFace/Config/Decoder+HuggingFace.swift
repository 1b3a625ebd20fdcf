import Base
import IR

extension Decoder {
  /// Adds the function after a look at the names of the checkpoint: the number of blocks is right, copies of tied weights and
  /// numbers that follow from the configuration are left out.
  func buildHuggingFace(
    _ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions,
    layersKey: String = "num_hidden_layers"
  ) throws {
    if let first = blocks.first?.module {
      let prefix = first.prefix { !$0.isNumber }
      try tensors.requireBlocks(blocks.count, prefix: String(prefix), key: layersKey)
    }
    if head.isTied { tensors.ignore(head.module.module + ".weight") }
    // Saved by old versions of transformers; computed from the configuration.
    for block in blocks { tensors.ignore(block.module + ".self_attn.rotary_emb.inv_freq") }
    try build(&tensors, into: &model, options: options)
  }

  /// Gives modules whose names begin with `old` another beginning.
  mutating func replacePrefix(_ old: String, with new: String) {
    func replace(_ name: inout String) {
      if name.hasPrefix(old) { name = new + name.dropFirst(old.count) }
    }
    func replaceOptional<Part>(_ part: inout Part?, _ name: WritableKeyPath<Part, String>) {
      guard var some = part else { return }
      replace(&some[keyPath: name])
      part = some
    }
    replace(&embedding.module)
    replaceOptional(&embedding.projection, \.module)
    replaceOptional(&embedding.positions, \.module)
    replaceOptional(&embedding.norm, \.module)
    for index in blocks.indices { replace(&blocks[index].module) }
    replaceOptional(&norm, \.module)
    replace(&head.module.module)
    replaceOptional(&head.projection, \.module)
  }
}
