-- KEYS[7..] pictures. Arguments: worker, epoch, state, body, result_ms, tombstone_ms, archive (whether the job is to leave
-- Redis for the store of results). Bytes: the pictures.
-- Returns 1, or -1 when the job is no longer this worker's. A repeated call changes nothing.
if field('state') == args.state and field('owner') == args.worker and number('epoch') == args.epoch then
  return 1
end
if not is_mine() then
  return -1
end
local pictures = 0
for i = 7, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i - 5], 'PX', args.result_ms)
  pictures = pictures + bytes_of(KEYS[i])
end
conclude(args.state, args.body, args.result_ms, args.tombstone_ms, pictures)
if args.archive then
  redis.call('ZADD', ARCHIVE, now, field('id'))
end
return 1
