-- KEYS[7] outputs. Arguments: id, ended_ms. A job is in the store of results: Redis keeps it a little longer, for those
-- who follow it. Returns 1, or 0 where somebody has deleted it meanwhile.
redis.call('ZREM', ARCHIVE, args.id)
if not is_terminal(field('state')) then
  return 0
end
redis.call('DEL', KEYS[7])
local source, storage = field('source'), storage_of(field('tenant'))
release_result(storage)
charge_result(storage, args.ended_ms, 0, key.job, key.events, key.previews, source)
for _, name in ipairs({key.job, key.events, key.previews, source}) do
  if name ~= '' then
    redis.call('PEXPIRE', name, args.ended_ms)
  end
end
return 1
