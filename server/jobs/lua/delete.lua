-- KEYS[7..] outputs and pictures. Arguments: id. Deletes a job that has ended, with all that Redis holds of it but the
-- tombstone. Returns its state.
local state = field('state')
if is_terminal(state) then
  release_result(storage_of(field('tenant')))
  redis.call('ZREM', ARCHIVE, args.id)
  local source = field('source')
  if source ~= '' then
    redis.call('DEL', source)
  end
  redis.call('DEL', key.job, key.events, key.previews, unpack(KEYS, 7))
end
return state
